//! fastwebsockets, on hyper and tokio, with rustls.

use std::convert::Infallible;

use clap::Parser;
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollector, FragmentCollectorRead, Frame, OpCode, WebSocketError};
use h_realtime_peers::{Args, FAN_QUEUE, Result, raise_open_files};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

/// A message with the number of its sender.
type Fan = broadcast::Sender<(u64, Bytes)>;

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
                None => http(stream, fan, number).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        http(stream, fan, number).await;
                    }
                }
            }
        });
    }
    Ok(())
}

async fn http<S>(stream: S, fan: Fan, number: u64)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| respond(request, fan.clone(), number));
    let served = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // An error only concerns this client.
    let _ = served.await;
}

async fn respond(
    mut request: Request<Incoming>,
    fan: Fan,
    number: u64,
) -> std::result::Result<Response<Empty<Bytes>>, WebSocketError> {
    let is_fan = request.uri().path() == "/fan";
    let (response, upgraded) = upgrade(&mut request)?;
    tokio::spawn(async move {
        let _ = match is_fan {
            false => tokio::task::unconstrained(echo(upgraded)).await,
            true => tokio::task::unconstrained(share(upgraded, fan, number)).await,
        };
    });
    Ok(response)
}

async fn echo(upgraded: UpgradeFut) -> std::result::Result<(), WebSocketError> {
    let mut socket = upgraded.await?;
    socket.set_auto_close(true);
    let mut socket = FragmentCollector::new(socket);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}

/// One task reads and one writes, so that neither is canceled in the middle of a frame.
async fn share(
    upgraded: UpgradeFut,
    fan: Fan,
    number: u64,
) -> std::result::Result<(), WebSocketError> {
    let (read, mut write) = upgraded.await?.split(tokio::io::split);
    let mut receiver = fan.subscribe();
    let writer = tokio::spawn(async move {
        while let Ok((from, text)) = receiver.recv().await {
            if from != number {
                write.write_frame(Frame::text((&text[..]).into())).await?;
            }
        }
        Ok::<(), WebSocketError>(())
    });
    let mut read = FragmentCollectorRead::new(read);
    let done = listen(&mut read, &fan, number).await;
    writer.abort();
    done
}

async fn listen<R>(
    read: &mut FragmentCollectorRead<R>,
    fan: &Fan,
    number: u64,
) -> std::result::Result<(), WebSocketError>
where
    R: AsyncRead + Unpin,
{
    loop {
        let frame = read.read_frame(&mut ignore).await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => {
                // There may be no other receivers.
                let _ = fan.send((number, Bytes::copy_from_slice(&frame.payload)));
            }
            _ => {}
        }
    }
}

/// Here, clients send no pings.
async fn ignore(_: Frame<'_>) -> std::result::Result<(), Infallible> {
    Ok(())
}
