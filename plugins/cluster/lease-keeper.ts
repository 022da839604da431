import { reasonOf, type Logger } from '#core'
import type { Database, Statement } from '#contracts/database'
import { nowOf } from './clock.ts'
import type { RedisLink } from './redis-link.ts'

/** Where it stands who has what, and until when. */
export interface LeaseKeeper {
  /** A token that is larger than all before, or nothing if somebody has the name. */
  acquire(name: string): Promise<number | undefined>
  /** False if somebody else has it, or nobody. */
  renew(name: string, token: number): Promise<boolean>
  /** False if it was not held. */
  release(name: string, token: number): Promise<boolean>
}

export interface KeeperDeps {
  readonly database: Database
  readonly id: string
  readonly leaseMs: number
}

/** Rows of a table, by the clock of the database. */
export class DatabaseKeeper implements LeaseKeeper {
  readonly #acquire: Statement<{ token: number }>
  readonly #renew: Statement
  readonly #release: Statement

  constructor(readonly deps: KeeperDeps) {
    const { database, leaseMs } = deps
    const now = nowOf(database.dialect)
    this.#acquire = database.prepare(
      `INSERT INTO cluster_leases (name, token, holder, expires_at) VALUES (?, 1, ?, ${now} + ${leaseMs})
       ON CONFLICT (name) DO UPDATE SET token = cluster_leases.token + 1, holder = excluded.holder, expires_at = ${now} + ${leaseMs}
       WHERE cluster_leases.holder IS NULL OR cluster_leases.expires_at <= ${now} RETURNING token`)
    this.#renew = database.prepare(`UPDATE cluster_leases SET expires_at = ${now} + ${leaseMs} WHERE name = ? AND token = ? AND holder IS NOT NULL`)
    this.#release = database.prepare('UPDATE cluster_leases SET holder = NULL, expires_at = 0 WHERE name = ? AND token = ? AND holder IS NOT NULL')
  }

  async acquire(name: string): Promise<number | undefined> { return (await this.#acquire.get([name, this.deps.id]))?.token }
  async renew(name: string, token: number): Promise<boolean> { return await this.#renew.run([name, token]) > 0 }
  async release(name: string, token: number): Promise<boolean> { return await this.#release.run([name, token]) > 0 }
}

/** Only while the value is ours. */
const RENEW = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0`
const RELEASE = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`

/** Keys of Redis that run out. Tokens are counted in the database all the same: a Redis that was wiped, or lost its last second, would begin anew. */
export class RedisKeeper implements LeaseKeeper {
  readonly #count: Statement<{ token: number }>
  /** By name: of one name this process has at most one lease at a time. */
  readonly #values = new Map<string, { readonly token: number; readonly value: string }>()
  #next = 1

  constructor(readonly deps: KeeperDeps & { readonly link: RedisLink; readonly log: Logger }) {
    const { database } = deps
    // Not while an instance holds the row: it has `leases: database` still.
    this.#count = database.prepare(
      `INSERT INTO cluster_leases (name, token, expires_at) VALUES (?, 1, 0)
       ON CONFLICT (name) DO UPDATE SET token = cluster_leases.token + 1
       WHERE cluster_leases.holder IS NULL OR cluster_leases.expires_at <= ${nowOf(database.dialect)} RETURNING token`)
  }

  async acquire(name: string): Promise<number | undefined> {
    const { link, id, leaseMs, log } = this.deps
    const value = `${id}:${this.#next++}`
    if (await link.run((client, prefix) => client.set(keyOf(prefix, name), value, 'PX', leaseMs, 'NX')) === null) return undefined
    let token: number | undefined
    try { token = (await this.#count.get([name]))?.token } finally {
      if (token === undefined) await this.#run(RELEASE, name, value).catch(error => log.debug('a lease runs out', { reason: reasonOf(error) }))
    }
    if (token !== undefined) this.#values.set(name, { token, value })
    return token
  }

  async renew(name: string, token: number): Promise<boolean> {
    const held = this.#values.get(name)
    return held?.token === token && this.#run(RENEW, name, held.value, this.deps.leaseMs)
  }

  async release(name: string, token: number): Promise<boolean> {
    const held = this.#values.get(name)
    if (held?.token !== token) return false
    this.#values.delete(name)
    return this.#run(RELEASE, name, held.value)
  }

  async #run(script: string, name: string, ...args: (string | number)[]): Promise<boolean> {
    return await this.deps.link.run((client, prefix) => client.eval(script, 1, keyOf(prefix, name), ...args)) === 1
  }
}

const keyOf = (prefix: string, name: string) => `${prefix}:lease:${name}`
