import { parentPort } from 'node:worker_threads'
import { solve } from './equation.ts'
import { compute, warmUp } from './expression.ts'

warmUp()
parentPort!.on('message', (task: { expression: string } | { equations: string[] }) =>
  parentPort!.postMessage('expression' in task ? compute(task.expression) : solve(task.equations)))
parentPort!.postMessage('ready')
