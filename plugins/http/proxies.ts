import type { IncomingMessage } from 'node:http'
import { BlockList, isIP } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { Origin } from './exchange.ts'

const REQUEST_ID = /^[\w.:-]{1,128}$/
const MAX_HOPS = 20

/** An IPv4 peer of an IPv6 socket is named as IPv4. */
const plain = (address: string): string => (address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address)

/** An address, or a network such as `10.0.0.0/8`. */
export function isNetwork(text: string): boolean {
  const [address = '', bits, ...more] = text.split('/')
  const version = isIP(address)
  if (version === 0 || more.length > 0) return false
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128))
}

/** Whom a request comes from. What it says of itself in X-Forwarded-* and X-Request-Id counts only if a proxy says it that config names. */
export class Proxies {
  #trusted = new BlockList()
  #any = false

  update(networks: readonly string[]): void {
    this.#trusted = new BlockList()
    this.#any = networks.length > 0
    for (const network of networks) {
      const [address, bits] = network.split('/') as [string, string?]
      const family = isIP(address) === 6 ? 'ipv6' : 'ipv4'
      if (bits === undefined) this.#trusted.addAddress(address, family)
      else this.#trusted.addSubnet(address, Number(bits), family)
    }
  }

  originOf({ socket, headers }: IncomingMessage): Origin {
    const peer = plain(socket.remoteAddress ?? '')
    const secure = (socket as TLSSocket).encrypted === true
    if (!this.#any || !this.#trusts(peer)) return { address: peer, secure, id: undefined }
    const given = headers['x-request-id']
    const id = typeof given === 'string' && REQUEST_ID.test(given) ? given : undefined
    const proto = last(headers['x-forwarded-proto'])
    return { address: this.#client(peer, headers['x-forwarded-for']), secure: proto === undefined ? secure : proto === 'https', id }
  }

  #trusts(address: string): boolean { const version = isIP(address); return version !== 0 && this.#trusted.check(address, version === 6 ? 'ipv6' : 'ipv4') }

  /** From the right, where the nearest proxy wrote: the first that is none of ours. What stands left of it, anybody could have written. */
  #client(peer: string, header: string | string[] | undefined): string {
    let address = peer
    for (const hop of listOf(header).reverse().slice(0, MAX_HOPS)) {
      const next = plain(hop.replace(/^\[(.*)\](?::\d+)?$/, '$1').replace(/^(\d+\.\d+\.\d+\.\d+):\d+$/, '$1'))
      if (isIP(next) === 0) return address
      address = next
      if (!this.#trusts(address)) return address
    }
    return address
  }
}

const listOf = (header: string | string[] | undefined): string[] => (header === undefined ? [] : String(header).split(',').map(each => each.trim()))
const last = (header: string | string[] | undefined): string | undefined => listOf(header).at(-1)?.toLowerCase()
