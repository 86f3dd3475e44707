'use strict';
// Socket.IO as an application has it: a client joins the room that it names, and POST /publish/<room> sends to all in it.
// Prints its port. What differs from the defaults: no pings while memory is looked at, and no compression, which is off
// by default anyway.
const http = require('http');
const { Server } = require('socket.io');

const server = http.createServer((request, response) => {
  const room = request.url.replace('/publish/', '');
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    io.to(room).emit('cheese_made', JSON.parse(Buffer.concat(parts).toString()));
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': 2 });
    response.end('{}');
  });
});
const io = new Server(server, {
  pingInterval: 3600000,
  pingTimeout: 3600000,
  serveClient: false,
  cors: { origin: '*' },
});
io.on('connection', (socket) => socket.join(socket.handshake.query.room));
server.keepAliveTimeout = 3600000;
server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => console.log('port ' + server.address().port + '.'));
