import type { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import pg from 'pg'
import type { Client, ClientConfig, Pool, PoolClient, PoolConfig } from 'pg'
import type { Logger } from '#core'
import { isAnswer, reasonFrom } from './postgres-error.ts'
import { Pulse } from './postgres-pulse.ts'

// Whoever waits for an answer hears of it; without a listener the process would end.
const ignored = () => {}
/** The driver tells nobody its socket; only that can end what waits for a peer that says nothing. */
const socketOf = (client: object) => (client as { connection: { stream: Socket } }).connection.stream

/** What the server says, piece by piece, from its first greeting on. */
const messagesOf = (client: object) => (client as { connection: EventEmitter }).connection
/** What it waits for, of which it tells nobody either. */
const questionOf = (client: object) => (client as { _activeQuery: object | null })._activeQuery
const ACTIVE = "SELECT pid FROM pg_stat_activity WHERE application_name = current_setting('application_name') AND state = 'active'"

/** How the connections of a server that gives no sign of life end. */
export class Silence extends Error {
  readonly code = 'ETIMEDOUT'
  constructor() { super('it gives no sign of life') }
}

export interface ConnectionsDeps {
  readonly config: PoolConfig
  readonly log: Logger
  /** How long the server may be silent; for whoever wants to know that soon. */
  readonly silentMs: number | undefined
  /** Everybody who waited was told. */
  readonly silent: (error: Silence) => void
}

/** A pool of connections that are given up together when the server falls silent. */
export class Connections {
  #pool: Pool
  readonly #Client: new (config?: string | ClientConfig) => Client
  readonly #open = new Set<Client>()
  readonly #waiting = new Set<(error: Error) => void>()
  readonly #pulse: Pulse | undefined
  #prober: Client | undefined
  readonly #idle = new Set<object>()
  /** What the server did not work on when it was asked. */
  #missed = new Set<object>()

  constructor(readonly deps: ConnectionsDeps) {
    const [open, idle] = [this.#open, this.#idle]
    this.#Client = class extends pg.Client {
      constructor(config?: string | ClientConfig) {
        super(config)
        open.add(this)
        this.once('end', () => { open.delete(this); idle.delete(this) })
      }
    }
    const { silentMs: ms } = deps
    const silent = () => this.#cut(new Silence())
    if (ms !== undefined) this.#pulse = new Pulse({ ms, probe: () => this.#probe(), rest: () => this.#rest(), silent })
    this.#pool = this.#newPool()
  }

  get figures(): { readonly connections: number; readonly idle: number; readonly waiting: number; readonly max: number } {
    const { totalCount, idleCount, waitingCount, options } = this.#pool
    return { connections: totalCount, idle: idleCount, waiting: waitingCount, max: options.max }
  }

  acquire(): Promise<PoolClient> {
    this.#pulse?.enter()
    return new Promise((resolve, reject) => {
      const refuse = (error: Error) => {
        this.#waiting.delete(refuse)
        this.#pulse?.leave()
        reject(error)
      }
      this.#waiting.add(refuse)
      this.#pool.connect((error, client) => {
        // Who waited for it was told already.
        if (!this.#waiting.has(refuse)) return client?.release(true)
        if (!client) return refuse(error!)
        this.#waiting.delete(refuse)
        this.#idle.delete(client)
        client.on('error', ignored)
        resolve(client)
      })
    })
  }

  release(client: PoolClient, broken = false): void {
    client.off('error', ignored)
    if (!broken) this.#idle.add(client)
    client.release(broken)
    this.#pulse?.leave()
  }

  async end(): Promise<void> {
    this.#pulse?.stop()
    const prober = this.#prober && socketOf(this.#prober)
    this.#rest()
    if (prober && !prober.closed) await new Promise<void>(resolve => prober.once('close', () => resolve()))
    await this.#pool.end()
    // A server that says nothing does not say goodbye either.
    for (const each of this.#open) (each as unknown as { unref(): void }).unref()
  }

  #newPool(): Pool {
    const { config, log } = this.deps
    const pool = new pg.Pool({ ...config, Client: this.#Client } as PoolConfig)
    // An idle connection that breaks is replaced when it is needed; nobody asked it anything.
    pool.on('error', error => { if (!(error instanceof Silence)) log.warn('a connection to PostgreSQL broke', { reason: reasonFrom(error) }) })
    const pulse = this.#pulse
    if (pulse) pool.on('connect', client => { socketOf(client).on('data', () => pulse.heard()) })
    return pool
  }

  #cut(error: Silence): void {
    // Whoever is still in the line of the old one would have it connect again.
    const old = this.#pool
    this.#pool = this.#newPool()
    old.end().catch(ignored)
    for (const refuse of this.#waiting) refuse(error)
    for (const each of this.#open) socketOf(each).destroy(error)
    this.deps.silent(error)
  }

  /** On a connection of its own: those of the pool may all wait for what honestly takes long. */
  async #probe(): Promise<void> {
    const { connectionTimeoutMillis: _patience, pipeline: _together, ...config } = this.deps.config as PoolConfig & { pipeline?: boolean }
    const client = this.#prober ?? new this.#Client(config)
    try {
      if (!this.#prober) {
        this.#prober = client
        client.on('error', ignored)
        const greeted = () => this.#pulse?.greeted()
        // With TLS its first word is none that the driver tells of.
        socketOf(client).once('data', greeted)
        messagesOf(client).on('message', greeted)
        await client.connect()
      }
      this.#leave((await client.query<{ pid: number }>(ACTIVE)).rows.map(({ pid }) => pid), client)
    } catch (error) {
      if (this.#prober === client) this.#rest()
      if (!isAnswer(error)) throw error
    }
  }

  /**
   * The server lives, and nobody hears of it: who waits for what it does not work on, twice in a row, waits on a connection that is dead (after a
   * fail-over behind one address, say). Those that are idle are as old. Somebody in between, who has numbers of his own, can't be seen through.
   */
  #leave(active: readonly number[], prober: Client): void {
    const pidOf = (client: object) => (client as { processID: number }).processID
    const before = this.#missed
    this.#missed = new Set()
    if (!active.includes(pidOf(prober))) return
    // What is still being sent the server can't work on yet.
    const lost = [...this.#open].filter(each =>
      each !== prober && questionOf(each) && !socketOf(each).writableLength && !active.includes(pidOf(each)))
    for (const each of lost) this.#missed.add(questionOf(each)!)
    const dead = lost.filter(each => before.has(questionOf(each)!))
    if (!dead.length) return
    this.deps.log.warn('connections to PostgreSQL were dead, and are made anew', { count: dead.length })
    for (const each of [...dead, ...this.#idle]) socketOf(each).destroy(new Silence())
  }

  #rest(): void {
    const client = this.#prober
    this.#prober = undefined
    if (client) socketOf(client).destroy(new Silence())
  }
}
