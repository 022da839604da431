import { readdirSync, readFileSync } from 'node:fs'
import { SystemClock } from '#core'
import { recordLog } from '#core/testing'
import { Sandbox } from '../../../plugins/agent-pack-core/sandbox.ts'

// Runs code without end, tells the process that runs it, and waits to be killed.
const sandbox = new Sandbox({ timeout_ms: 60_000, memory_mb: 32, max_output: 2_000, concurrency: 1 }, new SystemClock(), recordLog())
const never = new AbortController().signal
await sandbox.run('1', never)
void sandbox.run('for (;;);', never)
const ours = readdirSync('/proc').filter(each => /^\d+$/.test(each)).find(pid => {
  try { return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('sandbox-child') && readFileSync(`/proc/${pid}/status`, 'utf8').includes(`PPid:\t${process.pid}\n`) } catch { return false }
})
setTimeout(() => process.stdout.write(`${ours}\n`), 200)
