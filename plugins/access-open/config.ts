import { z } from 'zod'
import { isLoopbackName } from './operator.ts'

const isLoopbackOrigin = (text: string): boolean => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  return url !== undefined && /^https?:$/.test(url.protocol) && url.origin === text && isLoopbackName(url.hostname)
}

export const config = z.strictObject({
  origins: z.array(z.string().refine(isLoopbackOrigin, 'must be an origin on this machine, such as http://localhost:5173, without a path')).max(20).default([])
    .describe('Other origins on this machine whose pages may call as the operator: a dev server. Name them in plugins.http.config.cors.origins too.'),
})
export type AccessOpenConfig = z.output<typeof config>
