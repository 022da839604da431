import { defineErrors } from '#core'

export const CalculatorErrors = defineErrors('CALCULATOR', {
  TIMEOUT: { message: 'the expression took longer than {ms} ms', fix: 'Make it smaller, or raise plugins.agent-pack-core.config.timeout_ms.', status: 422, expose: true },
  CRASHED: { message: 'the calculator ended while it worked on the expression: {reason}', fix: 'Make it smaller, or raise plugins.agent-pack-core.config.memory_mb.', status: 422, expose: true },
  UNREADABLE: { message: 'expressions can\'t be looked for in this request: {reason}', fix: 'Send the expression alone.', status: 422, expose: true },
  CLOSED: { message: 'the calculator is being stopped', fix: 'Try again in a moment.', status: 503, retryable: true, expose: true },
})

export const CodeErrors = defineErrors('CODE', {
  CRASHED: { message: 'the sandbox\'s process ended twice while it ran the code', fix: 'Try again; the log says how it ended.', status: 503, retryable: true, expose: true },
  CLOSED: { message: 'the sandbox is being stopped', fix: 'Try again in a moment.', status: 503, retryable: true, expose: true },
})

export const DocumentErrors = defineErrors('DOCUMENTS', {
  NONE: { message: 'no documents are configured', fix: 'Name files or folders in plugins.agent-pack-core.config.documents.paths.', status: 422, expose: true },
})
