import { RedisErrors } from '#contracts/redis'

export interface RedisNode { readonly host: string; readonly port: number }
export interface RedisAddress {
  readonly kind: 'standalone' | 'sentinel' | 'cluster'
  readonly tls: boolean
  readonly nodes: readonly RedisNode[]
  readonly db: number
  readonly username?: string
  readonly password?: string
  /** Of Sentinel. */
  readonly master?: string
  readonly sentinelUsername?: string
  readonly sentinelPassword?: string
}

const SHAPE = /^(redis|rediss)(?:\+(sentinel|cluster))?:\/\/(?:([^/?]*)@)?([^@/?]*)(?:\/([^?]*))?(?:\?(.*))?$/i
const NODE = /^(?:\[([0-9a-f:.]+)\]|([^\s:[\]]+))(?::(\d{1,5}))?$/i
const KNOWN = ['db', 'sentinel_username', 'sentinel_password']

/** Throws REDIS_ADDRESS, which tells nothing of the address but its scheme: it may hold a password. */
export function readAddress(text: string): RedisAddress {
  const shown = `${/^[a-z][a-z0-9+]*(?=:)/i.exec(text)?.[0] ?? '(no scheme)'}:…`
  const wrong = (reason: string) => RedisErrors.ADDRESS({ url: shown, reason })
  const plain = (value: string) => { try { return decodeURIComponent(value) } catch { throw wrong('it has a % that stands for nothing; write %25') } }
  const found = SHAPE.exec(text.trim())
  if (!found) throw wrong('it begins with none of the schemes, or has an @, / or ? in its password; write %40, %2F and %3F')
  const [, scheme, form, login, hosts, path = '', query = ''] = found
  const kind = (form?.toLowerCase() ?? 'standalone') as RedisAddress['kind']

  const nodes = hosts!.split(',').map(each => {
    const [, bracketed, name, port] = NODE.exec(each.trim()) ?? []
    const node = { host: bracketed ?? name ?? '', port: Number(port ?? (kind === 'sentinel' ? 26_379 : 6_379)) }
    if (!node.host || node.port < 1 || node.port > 65_535) throw wrong('one of its hosts is none')
    return node
  })
  if (kind === 'standalone' && nodes.length > 1) throw wrong('it names more than one host; say +sentinel or +cluster')

  const more = new URLSearchParams(query)
  for (const key of more.keys()) if (!KNOWN.includes(key)) throw wrong(`it has a parameter that is none of ${KNOWN.join(', ')}`)
  const steps = path.split('/').filter(Boolean).map(plain)
  const master = kind === 'sentinel' ? steps.shift() : undefined
  if (kind === 'sentinel' && !master) throw wrong('the name of the master is missing: redis+sentinel://host,host/master')
  const database = more.get('db') ?? steps.shift() ?? '0'
  if (!/^\d{1,5}$/.test(database) || steps.length) throw wrong('its database is not a number')
  if (kind === 'cluster' && Number(database)) throw wrong('a cluster has no databases but 0')

  const colon = login?.indexOf(':') ?? -1
  const username = login && plain(colon < 0 ? login : login.slice(0, colon))
  const password = login && colon >= 0 ? plain(login.slice(colon + 1)) : undefined
  const sentinelUsername = more.get('sentinel_username')
  const sentinelPassword = more.get('sentinel_password')
  return {
    kind, tls: scheme!.toLowerCase() === 'rediss', nodes, db: Number(database),
    ...(username && { username }), ...(password && { password }), ...(master && { master }),
    ...(sentinelUsername && { sentinelUsername }), ...(sentinelPassword && { sentinelPassword }),
  }
}
