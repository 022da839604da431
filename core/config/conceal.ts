import { Secret } from '../secret.ts'
import { soundsSecret } from './reference.ts'

const HIDDEN = '[hidden]'
/** What stands behind a word such as `token` when the setting is about the secret and not the secret itself. */
const ABOUT = /_(files?|paths?|dir|folder|ur[li]|ttl|ms|seconds|days|name|id|header|prefix|env|type|algorithm|size|length|bytes|budget|limit|count)$/i
/** A password in an address; a colon before a port is none. It may hold what ought to have been encoded, so all up to the last @ goes. */
const PASSWORD = /\b([a-z][a-z0-9+.-]{0,30}:\/\/[^\s/?#@:]*):(?!\d{1,5}(?:[/?#]|$))\S*@/gi
const PARAMETER = /([?&;]([\w.-]+)=)([^&;#\s]+)/g
/** As variables are written: `apiKey` and `api-key` as `api_key`. */
const snake = (name: string): string => name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').replace(/[-.\s]/g, '_')

const secretName = (name: string): boolean => {
  const written = snake(name)
  return (soundsSecret(written) && !ABOUT.test(written)) || /^(proxy_)?authorization$|(^|_)cookie$/i.test(written)
}

/**
 * A copy of settings for people to read: a text or number under a name that sounds secret is `[hidden]`, and so are the passwords in addresses.
 * Secret handles are left, since they print as their names. `path` is where the value stands.
 */
export function conceal(value: unknown, path: readonly string[] = []): unknown {
  if (value instanceof Secret || value === null) return value
  if (Array.isArray(value)) return value.map(each => conceal(each, path))
  if (typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, conceal(each, [...path, key])]))
  if ((typeof value !== 'string' || value === '') && typeof value !== 'number') return value
  // What a list holds goes by the name of the list.
  if (secretName(path.findLast(step => !/^\d+$/.test(step)) ?? '')) return HIDDEN
  if (typeof value === 'number') return value
  return value.replace(PASSWORD, `$1:${HIDDEN}@`).replace(PARAMETER, (whole, start: string, name: string) => (secretName(name) ? start + HIDDEN : whole))
}
