import Sqlite from 'better-sqlite3'
import { DatabaseErrors } from '#contracts/database'
import { isBusy, patiently } from './writer.ts'

export const SEATS = 4
const WAIT_MS = 1_500

/**
 * One of the places that the processes of one SQLite file share, until it is closed. A place is the lock of an empty file beside it:
 * the system frees it when its process ends, however it ends. Rejects with DATABASE_TOO_MANY_PROCESSES if none is free.
 */
export async function takeSeat(file: string): Promise<{ close(): void }> {
  const look = () => {
    let busy: unknown
    for (let number = 1; number <= SEATS; number++) {
      const seat = new Sqlite(`${file}.process-${number}`, { timeout: 0 })
      try {
        seat.exec('BEGIN EXCLUSIVE')
        return seat
      } catch (error) {
        seat.close()
        if (!isBusy(error)) throw error
        busy = error
      }
    }
    throw busy
  }
  // Two who look at the same moment may both be sent away from a free one; and one who leaves takes a moment.
  try { return await patiently(look, WAIT_MS) } catch (error) {
    throw DatabaseErrors.BUSY.is(error) ? DatabaseErrors.TOO_MANY_PROCESSES({ count: SEATS, file }) : error
  }
}
