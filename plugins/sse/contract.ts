import { defineErrors } from '#core'

export const SseErrors = defineErrors('SSE', {
  TOO_MANY: { message: '{who} {open} event streams open already, and {limit} may be', fix: 'Close one, or raise plugins.sse.config.{setting}.', status: 429, retryable: true, expose: true },
  CURSOR_INVALID: { message: '"{cursor}" is no cursor of a project', fix: 'Send the id of the last event that you got (`Last-Event-ID`), or none.', status: 400, expose: true },
})
