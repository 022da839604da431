import { parentPort } from 'node:worker_threads'
import { compute, warmUp } from './expression.ts'

warmUp()
parentPort!.on('message', (expression: string) => parentPort!.postMessage(compute(expression)))
parentPort!.postMessage('ready')
