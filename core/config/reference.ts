export type Kind = 'env' | 'file' | 'secret'
export interface Reference { readonly kind: Kind; readonly name: string; readonly fallback?: string; readonly source: string }
export type Part = string | Reference
/** What is wrong, and what would be right. */
export interface BadReference { readonly source: string; readonly reason: string; readonly expected: string }

const NAMES: Readonly<Record<Kind, RegExp>> = { env: /^[A-Za-z_][A-Za-z0-9_]*$/, file: /^[^\0\r\n]+$/, secret: /^[A-Za-z0-9][\w.\-/@:]*$/ }
export const FORMS = '${env:NAME}, ${env:NAME:-default}, ${file:path} or ${secret:name}; $${ for a literal ${'

/** Splits a text into what stands there literally and what is to be looked up. Nothing is evaluated, and nothing inside a value is looked at again. */
export function parseReferences(text: string): readonly Part[] | BadReference {
  const parts: Part[] = []
  let literal = ''
  let at = 0
  while (at < text.length) {
    const open = text.indexOf('${', at)
    if (open < 0) break
    if (open > at && text[open - 1] === '$') { literal += `${text.slice(at, open - 1)}\${`; at = open + 2; continue }
    literal += text.slice(at, open)
    const close = text.indexOf('}', open)
    const source = text.slice(open, close < 0 ? undefined : close + 1)
    if (close < 0) return { source, reason: 'it is not closed', expected: 'a closing }' }
    const match = /^([^:]*)(?::([\s\S]*))?$/.exec(text.slice(open + 2, close))!
    const kind = match[1] as Kind
    if (match[2] === undefined || !Object.hasOwn(NAMES, kind)) return { source, reason: 'there is no such reference', expected: FORMS }
    const split = kind === 'env' ? match[2].indexOf(':-') : -1
    const name = split < 0 ? match[2] : match[2].slice(0, split)
    if (!NAMES[kind].test(name)) return { source, reason: `"${name}" cannot be the name of ${kind === 'env' ? 'a variable' : `a ${kind}`}`, expected: FORMS }
    if (literal) parts.push(literal)
    literal = ''
    parts.push({ kind, name, source, ...(split >= 0 && { fallback: match[2].slice(split + 2) }) })
    at = close + 1
  }
  literal += text.slice(at)
  if (literal || !parts.length) parts.push(literal)
  return parts
}

const WORDS = /(^|_)(\w*API_?KEYS?|\w*_KEYS?|KEYS?|PASS|\w*TOKEN|\w*PASSWORDS?|\w*PASSWD|\w*PASSPHRASE|\w*SECRETS?|\w*CREDENTIALS?|DSN)(_|$)|_PWD$/i
const SERVERS = ['DATABASE', 'DB', 'POSTGRES', 'POSTGRESQL', 'PG', 'MYSQL', 'MARIADB', 'MONGO', 'MONGODB', 'REDIS', 'VALKEY', 'AMQP', 'CLOUDAMQP', 'RABBITMQ', 'NATS', 'KAFKA', 'BROKER']
const ADDRESSES = new RegExp(`(^|_)(${SERVERS.join('|')})_UR[LI]$`, 'i')

/** Does the name of a variable say that its value must not be shown? Addresses of databases and queues mostly hold a password. */
export const soundsSecret = (name: string): boolean => WORDS.test(name) || ADDRESSES.test(name)

/** Is it an address with a password in it, whatever its name? */
export const holdsPassword = (value: string): boolean => /\b[a-z][a-z0-9+.-]{0,30}:\/\/[^\s/?#@:]*:[^\s/?#]+@/i.test(value)
