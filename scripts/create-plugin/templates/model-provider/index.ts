import { Secret, definePlugin } from 'backplane'
import { ModelProvider } from 'backplane/contracts/models'
import { z } from 'zod'
import { ChatModel } from './chat-model.ts'

const config = z.strictObject({
  url: z.url().default('http://127.0.0.1:11434/v1').describe('Of a server that speaks the chat completions protocol; /chat/completions is added.'),
  key: z.instanceof(Secret).meta({ type: 'string' }).optional().describe('Its API key, if it wants one: ${env:NAME} or ${secret:name}.'),
  models: z.array(z.string().min(1)).default([]).describe('The models that it has, for lists.'),
})

export default definePlugin({
  name: '{{name}}',
  summary: 'Language models of a server that speaks the chat completions protocol',
  config,
  contributes: [ModelProvider],
  setup(ctx) {
    const { url, key, models } = ctx.config
    ctx.contribute(ModelProvider, { name: ctx.name, missing: [], models, create: async model => new ChatModel(ctx.name, model, url, key) })
  },
})
