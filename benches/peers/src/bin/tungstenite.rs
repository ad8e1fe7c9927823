//! tokio-tungstenite, with rustls. Its read buffer of 128 KiB per connection is reduced to 4 KiB,
//! which suits many idle connections best.

use std::sync::{Arc, Mutex};

use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use h_realtime_peers::{Args, FAN_QUEUE, Result, raise_open_files};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

/// A message with the number of its sender.
type Fan = broadcast::Sender<(u64, Message)>;

fn main() -> Result<()> {
    let args = Args::parse();
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> Result<()> {
    let tls = args.tls()?;
    let listener = TcpListener::bind(args.address).await?;
    println!("listening on {}", listener.local_addr()?);
    let (fan, _) = broadcast::channel(FAN_QUEUE);
    for number in 0.. {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (fan, tls) = (fan.clone(), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => upgrade(stream, fan, number).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        upgrade(stream, fan, number).await;
                    }
                }
            }
        });
    }
    Ok(())
}

async fn upgrade<S>(stream: S, fan: Fan, number: u64)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let path = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&path);
    // The library's API requires an entire response as its error type.
    #[allow(clippy::result_large_err)]
    let note = move |request: &Request, response: Response| {
        if let Ok(mut path) = seen.lock() {
            *path = request.uri().path().to_owned();
        }
        Ok(response)
    };
    let Ok(socket) = accept_hdr_async_with_config(stream, note, Some(config)).await else {
        return;
    };
    let is_fan = path.lock().is_ok_and(|path| *path == "/fan");
    drop(path);
    // An error only concerns this client.
    let _ = match is_fan {
        false => echo(socket).await,
        true => share(socket, fan, number).await,
    };
}

async fn echo<S>(mut socket: WebSocketStream<S>) -> tokio_tungstenite::tungstenite::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

async fn share<S>(
    mut socket: WebSocketStream<S>,
    fan: Fan,
    number: u64,
) -> tokio_tungstenite::tungstenite::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut receiver = fan.subscribe();
    loop {
        tokio::select! {
            message = socket.next() => match message.transpose()? {
                None => return Ok(()),
                Some(message) if message.is_text() || message.is_binary() => {
                    // There may be no other receivers.
                    let _ = fan.send((number, message));
                }
                Some(_) => {}
            },
            received = receiver.recv() => match received {
                Ok((from, message)) if from != number => socket.send(message).await?,
                Ok(_) => {}
                Err(_) => return Ok(()),
            },
        }
    }
}
