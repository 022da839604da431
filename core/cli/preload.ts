import { prepare } from '../host/loader.ts'

// With `node --import`, after tsx: what this process loads sees the host's own `backplane`.
await prepare(true, false)
