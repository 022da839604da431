import { AccessErrors, type Access, type Caller, type Credentials } from '#contracts/access'

const OPERATOR: Caller = Object.freeze({ id: 'operator', kind: 'operator', name: 'operator', project_id: 'default' })

const isLoopbackAddress = (address: string): boolean => address === '::1' || /^(?:::ffff:)?127(?:\.\d{1,3}){3}$/i.test(address)
/** Names that need no resolver: what a resolver answers is exactly what a DNS rebinding attack controls. */
export const isLoopbackName = (name: string): boolean => name === 'localhost' || name === '[::1]' || /^127(?:\.\d{1,3}){3}$/.test(name)

/** The form of a Host header: name and port. */
const HOST = /^(\[[\da-f:.]+\]|[^:[\]/\\@?#\s]+)(?::\d{1,5})?$/i
/** What proxies and content networks add. A bare one that adds nothing can't be told from a local client. */
const PROXIED = new Set([
  'forwarded', 'via', 'x-real-ip', 'x-client-ip', 'x-cluster-client-ip', 'x-original-forwarded-for', 'x-original-host', 'x-originating-ip', 'x-remote-ip', 'x-remote-addr',
  'x-envoy-external-address', 'x-proxyuser-ip', 'true-client-ip', 'client-ip', 'fastly-client-ip', 'fly-client-ip', 'cdn-loop', 'x-appengine-user-ip', 'x-azure-clientip',
  'cf-ray', 'cf-connecting-ip', 'cf-connecting-ipv6', 'cf-pseudo-ipv4', 'cf-visitor', 'x-amz-cf-id', 'x-amzn-trace-id', 'tailscale-user-login',
])
const proxied = (header: string): boolean => PROXIED.has(header) || header.startsWith('x-forwarded')

/** Everybody who reaches the server over loopback is the operator; whatever else could bring a request here is refused. */
export function createOpenAccess(origins: readonly string[] = []): Access {
  return {
    async identify(credentials) {
      admit(credentials, origins)
      return OPERATOR
    },
    async check() {},
    async projects() { return 'all' },
    async restore(principalId, projectId) {
      if (principalId === OPERATOR.id) return { ...OPERATOR, project_id: projectId }
      throw AccessErrors.FORBIDDEN({ permission: '*:*', reason: `access-open knows only the operator, not "${principalId}"` })
    },
    async admitBind(host) {
      if (isLoopbackName(host) || host === '::1') return
      throw AccessErrors.BIND_REFUSED({ host, reason: 'access-open lets everybody in who reaches the server' })
    },
  }
}

function admit({ headers, address }: Credentials, origins: readonly string[]): void {
  const one = (name: string): string | undefined => { const value = headers[name]; return typeof value === 'string' ? value : value?.join(', ') }
  if (!isLoopbackAddress(address)) throw AccessErrors.PEER_REFUSED({ peer: address || 'an unknown address' })
  // A proxy on this machine comes over loopback, and may write its own name into Host; who is behind it need not be here.
  if (Object.keys(headers).some(name => headers[name] !== undefined && proxied(name))) throw AccessErrors.PEER_REFUSED({ peer: 'behind a proxy' })
  const host = one('host')?.toLowerCase() ?? ''
  const name = HOST.exec(host)?.[1]
  if (name === undefined || !isLoopbackName(name)) throw AccessErrors.HOST_REFUSED({ host })
  const origin = one('origin')?.toLowerCase()
  if (origin !== undefined) {
    if (origin !== `http://${host}` && origin !== `https://${host}` && !origins.includes(origin)) throw AccessErrors.ORIGIN_REFUSED({ origin })
    return
  }
  // Images, scripts and forms of other sites come without an Origin, but a browser says where from.
  if (one('sec-fetch-site') === 'cross-site' && one('sec-fetch-mode') !== 'navigate') throw AccessErrors.ORIGIN_REFUSED({ origin: 'another site' })
}
