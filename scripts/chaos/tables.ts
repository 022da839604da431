import Sqlite from 'better-sqlite3'
import pg from 'pg'

/** The tables themselves, asked past the product. */
export interface Tables {
  rows(sql: string): Promise<unknown[]>
  close(): Promise<void>
}

/** Open only for a moment: whoever keeps a SQLite file open keeps its log from being written back. */
export class SqliteTables implements Tables {
  constructor(readonly file: string) {}

  async rows(sql: string): Promise<unknown[]> {
    const database = new Sqlite(this.file, { readonly: true })
    try { return database.prepare(sql).all() } finally { database.close() }
  }
  async close(): Promise<void> {}
}

/** On one connection, until the server is killed. */
export class PostgresTables implements Tables {
  #client: Promise<pg.Client> | undefined
  constructor(readonly url: string) {}

  async rows(sql: string): Promise<unknown[]> {
    const client = (this.#client ??= this.#connect())
    try { return (await (await client).query(sql)).rows } catch (error) {
      if (this.#client === client) await this.close()
      throw error
    }
  }

  async close(): Promise<void> {
    const client = this.#client
    this.#client = undefined
    await client?.then(each => each.end()).catch(() => {})
  }

  async #connect(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.url })
    client.on('error', () => { this.#client = undefined })
    await client.connect()
    return client
  }
}
