import type { Dialect } from '#contracts/database'

/** Milliseconds since the epoch by the clock of the database: the only one that all processes share. */
export const nowOf = (dialect: Dialect): string =>
  (dialect === 'sqlite' ? 'CAST(unixepoch(\'subsec\') * 1000 AS INTEGER)' : 'CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS bigint)')
