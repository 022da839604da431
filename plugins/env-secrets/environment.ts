import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { reasonOf } from '#core'
import { normalizeSecretName, SecretsErrors, type SecretStore, type SecretValue } from '#contracts/secrets'

/** What a secret file may hold, in bytes. */
const MOST = 65_536
const NAME = 'env'

export type Environment = Readonly<Record<string, string | undefined>>

/** The variable with each secret: `anthropic-api-key` is ANTHROPIC_API_KEY. Of several spellings the one in capitals counts. */
function variablesOf(env: Environment, prefix: string): Map<string, string> {
  const found = new Map<string, string>()
  for (const [variable, value] of Object.entries(env)) {
    // An empty variable is how a shell or a compose file says that there is none.
    if (!value || !variable.startsWith(prefix)) continue
    const name = normalizeSecretName(variable.slice(prefix.length))
    if (name && (!found.has(name) || variable === variable.toUpperCase())) found.set(name, variable)
  }
  return found
}

/** Reads at most `MOST` bytes, also of what has no size or grows. Rejects with SECRETS_UNAVAILABLE, never with what is in it. */
async function contentOf(file: string, variable: string): Promise<string> {
  const unavailable = (reason: string) => SecretsErrors.UNAVAILABLE({ store: NAME, reason: `the file that ${variable} names ${reason}` })
  try {
    // Without O_NONBLOCK the opening of a pipe waits for its other end, and a thread of the pool with it.
    await using handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK)
    if (!(await handle.stat()).isFile()) throw unavailable('is no file')
    const buffer = Buffer.alloc(MOST + 1)
    let size = 0
    for (let read = -1; read && size < buffer.length; size += read) read = (await handle.read(buffer, size, buffer.length - size)).bytesRead
    if (size > MOST) throw unavailable(`has more than ${MOST} bytes`)
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(buffer.subarray(0, size)).replace(/\r?\n$/, '')
  } catch (error) {
    if (SecretsErrors.UNAVAILABLE.is(error)) throw error
    throw unavailable(error instanceof TypeError ? 'is no text in UTF-8' : `can't be read (${(error as NodeJS.ErrnoException).code})`)
  }
}

/** The environment as a store: `X`, or the file that `X_FILE` names, as Docker and Kubernetes hand secrets over. Read only. */
export class EnvironmentStore implements SecretStore {
  readonly name = NAME
  readonly priority = 30
  readonly can = { write: false, versions: false, list: false }
  readonly #variables: ReadonlyMap<string, string>
  readonly #failing = new Map<string, string>()

  constructor(readonly env: Environment, prefix = '') { this.#variables = variablesOf(env, prefix) }

  /** Why the files that were asked for last time could not be read. */
  get failing(): readonly string[] { return [...this.#failing.values()] }

  async status(): Promise<'ready'> { return 'ready' }

  async read(name: string, version?: string): Promise<SecretValue | undefined> {
    if (version !== undefined) return undefined
    const normal = normalizeSecretName(name)
    const own = this.#variables.get(normal)
    if (own !== undefined) return { value: this.env[own]!, store: NAME }
    const file = this.#variables.get(`${normal}-file`)
    if (file === undefined) return undefined
    let value: string
    try { value = await contentOf(this.env[file]!, file) } catch (error) {
      this.#failing.set(file, reasonOf(error))
      throw error
    }
    this.#failing.delete(file)
    return value === '' ? undefined : { value, store: NAME }
  }

  async write(): Promise<never> { throw SecretsErrors.READ_ONLY({ store: NAME }) }
  async delete(): Promise<never> { throw SecretsErrors.READ_ONLY({ store: NAME }) }
  /** Which variables are secrets nobody can tell: none is listed. */
  async list(): Promise<readonly string[]> { return [] }
  async versions(): Promise<readonly string[]> { return [] }
}
