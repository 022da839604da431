import { AccessErrors, type Access, type Caller, type Credentials } from '#contracts/access'

const OPERATOR: Caller = Object.freeze({ id: 'operator', kind: 'operator', name: 'operator', project_id: 'default' })

const isLoopbackAddress = (address: string): boolean => address === '::1' || /^(?:::ffff:)?127(?:\.\d{1,3}){3}$/i.test(address)
/** Names that need no resolver: what a resolver answers is exactly what a DNS rebinding attack controls. */
const isLoopbackName = (name: string): boolean => name === 'localhost' || name === '[::1]' || /^127(?:\.\d{1,3}){3}$/.test(name)

/** The form of a Host header: name and port. */
const HOST = /^(\[[\da-f:.]+\]|[^:[\]/\\@?#\s]+)(?::\d{1,5})?$/i
const PROXIED = ['forwarded', 'x-forwarded-for', 'x-forwarded-host', 'x-real-ip']

/** Everybody who reaches the server over loopback is the operator; whatever else could bring a request here is refused. */
export function createOpenAccess(): Access {
  return {
    async identify(credentials) {
      admit(credentials)
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

function admit({ headers, address }: Credentials): void {
  const one = (name: string): string | undefined => { const value = headers[name]; return typeof value === 'string' ? value : value?.join(', ') }
  if (!isLoopbackAddress(address)) throw AccessErrors.PEER_REFUSED({ peer: address || 'an unknown address' })
  // A proxy on this machine comes over loopback, and may write its own name into Host; who is behind it need not be here.
  if (PROXIED.some(name => headers[name] !== undefined)) throw AccessErrors.PEER_REFUSED({ peer: 'behind a proxy' })
  const host = one('host')?.toLowerCase() ?? ''
  const name = HOST.exec(host)?.[1]
  if (name === undefined || !isLoopbackName(name)) throw AccessErrors.HOST_REFUSED({ host })
  const origin = one('origin')?.toLowerCase()
  if (origin !== undefined) {
    if (origin !== `http://${host}` && origin !== `https://${host}`) throw AccessErrors.ORIGIN_REFUSED({ origin })
    return
  }
  // Images, scripts and forms of other sites come without an Origin, but a browser says where from.
  if (one('sec-fetch-site') === 'cross-site' && one('sec-fetch-mode') !== 'navigate') throw AccessErrors.ORIGIN_REFUSED({ origin: 'another site' })
}
