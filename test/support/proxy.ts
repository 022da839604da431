import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

/** Between a client and a server on this machine: what goes through it can fall silent without a word, for both sides. */
export interface Proxy extends AsyncDisposable {
  readonly port: number
  /** From now on nothing gets through, or nothing back; or only what is open now is cut off. */
  silence(what?: 'all' | 'answers' | 'open'): void
  /** What is new gets through again; what was held back is lost. */
  speak(): void
}

export async function proxyTo(port: number): Promise<Proxy> {
  const pairs = new Set<readonly [Socket, Socket]>()
  let open = true
  const hold = (...sockets: readonly Socket[]) => { for (const each of sockets) each.unpipe().pause() }
  const join = ([one, other]: readonly [Socket, Socket]) => { one.pipe(other); other.pipe(one) }
  const server = createServer({ allowHalfOpen: false }, client => {
    const pair = [client, connect(port, '127.0.0.1')] as const
    pairs.add(pair)
    for (const [at, each] of pair.entries()) each.on('error', () => {}).once('close', () => { pairs.delete(pair); pair[1 - at]!.destroy() })
    if (open) join(pair)
    else hold(...pair)
  })
  await new Promise<void>(resolve => { server.listen(0, '127.0.0.1', resolve) })
  return {
    port: (server.address() as AddressInfo).port,
    silence(what = 'all') {
      open = what === 'open'
      for (const [client, other] of pairs) hold(other, ...(what === 'answers' ? [] : [client]))
    },
    speak() {
      open = true
      for (const [client] of pairs) client.destroy()
    },
    async [Symbol.asyncDispose]() {
      for (const pair of pairs) for (const each of pair) each.destroy()
      await new Promise(resolve => server.close(resolve))
    },
  }
}
