import { prepare } from './loader.ts'

// With `node --import`: what this process loads sees the host's own `backplane`.
await prepare(true, true)
