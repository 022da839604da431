import { createHash, randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { IncomingMessage } from 'node:http'

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
const acceptOf = (key: string) => createHash('sha1').update(key + GUID).digest('base64')

/** Text frames of less than 126 bytes, as they come; what is half there waits. */
function reader(told: (text: string) => void) {
  let rest = Buffer.alloc(0)
  return (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk])
    for (;;) {
      if (rest.length < 2) return
      const masked = (rest[1]! & 0x80) !== 0
      const length = rest[1]! & 0x7f
      const from = masked ? 6 : 2
      if (rest.length < from + length) return
      const data = Buffer.from(rest.subarray(from, from + length))
      if (masked) for (let at = 0; at < data.length; at++) data[at]! ^= rest[2 + (at & 3)]!
      rest = rest.subarray(from + length)
      told(data.toString())
    }
  }
}

/** The server's end of a WebSocket that says everything back. */
export function echoWebSocket(request: IncomingMessage, socket: Duplex): void {
  const accept = acceptOf(String(request.headers['sec-websocket-key']))
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`)
  socket.on('data', reader(text => { socket.write(Buffer.concat([Buffer.from([0x81, Buffer.byteLength(text)]), Buffer.from(text)])) }))
}

/** The client's end, just as much of RFC 6455 as that takes. */
export interface WebSocketClient { readonly socket: Socket; readonly heard: string[]; readonly closed: boolean; say(text: string): void }
export async function openWebSocket(url: string, path: string): Promise<WebSocketClient> {
  const { hostname, port } = new URL(url)
  const key = randomBytes(16).toString('base64')
  const socket = connect(Number(port), hostname)
  const heard: string[] = []
  let closed = false
  socket.on('error', () => {}).on('close', () => { closed = true })
  socket.write(`GET ${path} HTTP/1.1\r\nHost: ${hostname}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`)
  await new Promise<void>((resolve, reject) => {
    let head = ''
    const read = (chunk: Buffer) => {
      head += chunk.toString('latin1')
      if (!head.endsWith('\r\n\r\n')) return
      socket.off('data', read)
      if (!head.startsWith('HTTP/1.1 101') || !head.includes(acceptOf(key))) { reject(new Error(head)); return }
      socket.on('data', reader(text => heard.push(text)))
      resolve()
    }
    socket.on('data', read)
    socket.once('close', () => reject(new Error(`closed after: ${head}`)))
  })
  return { socket, heard, get closed() { return closed }, say(text) {
    const mask = randomBytes(4)
    const data = Buffer.from(text).map((byte, at) => byte ^ mask[at & 3]!)
    socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | data.length]), mask, data]))
  } }
}
