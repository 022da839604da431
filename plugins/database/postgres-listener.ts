import pg from 'pg'
import type { Client, ClientConfig } from 'pg'
import type { Logger } from '#core'
import type { DatabaseListener } from '#contracts/database'
import { errorOf, reasonFrom } from './postgres-error.ts'
import { settingsOf } from './postgres.ts'

const CONNECT_MS = 5_000
const RETRY = { first: 100, most: 5_000 }
/** How often the connection is asked whether it lives: a listener sends nothing by itself, and would not see a dead peer. */
const PING_MS = 15_000

export interface ListenerOptions {
  /** Asked again for each connection, so that a rotated password is used. */
  address(): Promise<string>
  readonly connectionName: string
  /** Of a server: it listens as soon as it can. */
  readonly waits?: boolean
}

/** LISTEN on one channel. A connection that broke is made again, with a pause that doubles. */
export class PostgresListener implements DatabaseListener {
  #client: Client | undefined
  #closed = false
  #failures = 0
  #timer: NodeJS.Timeout | undefined
  #connecting: Promise<void> | undefined

  private constructor(readonly options: ListenerOptions, readonly channel: string, readonly heard: (message: string) => void, readonly log: Logger) {}

  /** Rejects with DATABASE_UNAVAILABLE if it can't listen the first time, unless it `waits`. */
  static async open(options: ListenerOptions, channel: string, heard: (message: string) => void, log: Logger): Promise<PostgresListener> {
    const listener = new PostgresListener(options, channel, heard, log)
    try { await listener.#connect() } catch (error) {
      if (!options.waits) throw error
      listener.#again()
    }
    return listener
  }

  get connected(): boolean { return this.#client !== undefined }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#connecting
    const client = this.#client
    this.#client = undefined
    await client?.end().catch(() => {})
  }

  async #connect(): Promise<void> {
    const client = new pg.Client({
      ...settingsOf(await this.options.address()), application_name: this.options.connectionName,
      connectionTimeoutMillis: CONNECT_MS, query_timeout: CONNECT_MS, keepAlive: true,
    } as ClientConfig)
    client.on('error', error => this.#lost(client, error))
    client.on('end', () => this.#lost(client))
    client.on('notification', ({ payload }) => { if (payload !== undefined) this.heard(payload) })
    try {
      await client.connect()
      await client.query(`LISTEN ${pg.escapeIdentifier(this.channel)}`)
    } catch (error) {
      client.end().catch(() => {})
      throw errorOf(error)
    }
    this.#client = client
    this.#failures = 0
    this.#later(PING_MS, () => this.#ping(client))
  }

  async #ping(client: Client): Promise<void> {
    try { await client.query('SELECT 1') } catch (error) { return this.#lost(client, error) }
    if (this.#client === client) this.#later(PING_MS, () => this.#ping(client))
  }

  #lost(client: Client, error?: unknown): void {
    if (this.#closed || this.#client !== client) return
    this.#client = undefined
    client.end().catch(() => {})
    this.log.warn('the connection that listens to PostgreSQL broke, and is made again', { reason: error === undefined ? 'it was closed' : reasonFrom(error) })
    this.#again()
  }

  #again(): void {
    this.#later(Math.min(RETRY.first * 2 ** this.#failures++, RETRY.most) * (0.5 + Math.random() / 2), () => {
      this.#connecting = this.#connect().then(() => this.log.info('listening to PostgreSQL again'), () => { if (!this.#closed) this.#again() })
    })
  }

  #later(ms: number, run: () => unknown): void {
    clearTimeout(this.#timer)
    if (!this.#closed) this.#timer = setTimeout(run, ms)
  }
}
