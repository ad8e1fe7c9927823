// ws on Node, without compression. Serves /echo and /fan; see ../src/lib.rs.

const { WebSocketServer, WebSocket } = require('ws');

const fan = new Set();
const server = new WebSocketServer({
  host: '127.0.0.1', port: 0, backlog: 4096, perMessageDeflate: false, maxPayload: 1 << 26, skipUTF8Validation: false,
});
server.on('listening', () => console.log(`listening on 127.0.0.1:${server.address().port}`));
server.on('connection', (socket, request) => {
  socket.on('error', () => {});
  if (request.url !== '/fan') {
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
    return;
  }
  fan.add(socket);
  socket.on('close', () => fan.delete(socket));
  socket.on('message', (data, isBinary) => {
    for (const other of fan) {
      if (other !== socket && other.readyState === WebSocket.OPEN) other.send(data, { binary: isBinary });
    }
  });
});
