import { definePlugin } from '#core'
import { Agent, Tool } from '#contracts/agents'
import { Calculator } from './calculator.ts'
import { codeAgent, codeTool } from './code.ts'
import { config } from './config.ts'
import { Dates } from './dates.ts'
import { DocumentFiles } from './document-files.ts'
import { DocumentIndex } from './document-index.ts'
import { calculatorTool, datesTool, mathAgent, solverTool } from './math.ts'
import { queryAgent, searchTool } from './query.ts'
import { Sandbox } from './sandbox.ts'

export default definePlugin({
  name: 'agent-pack-core',
  summary: 'Agents that come with Backplane: math computes, code runs JavaScript in a sandbox, query searches documents',
  config,
  contributes: [Agent, Tool],
  setup(ctx) {
    const calculator = ctx.own(new Calculator(ctx.config, ctx.clock, ctx.log))
    ctx.contribute(Tool, calculatorTool(calculator))
    ctx.contribute(Tool, solverTool(calculator))
    ctx.contribute(Tool, datesTool(new Dates(ctx.clock, ctx.config.time_zone)))
    ctx.contribute(Agent, mathAgent)
    ctx.contribute(Tool, codeTool(ctx.own(new Sandbox(ctx.config.code, ctx.clock, ctx.log))))
    ctx.contribute(Agent, codeAgent)
    const documents = ctx.own(new DocumentIndex(new DocumentFiles(ctx.config.documents, ctx.log), ctx.clock, ctx.log))
    ctx.contribute(Tool, searchTool(documents))
    ctx.contribute(Agent, queryAgent)
    return { start: () => documents.start() }
  },
})
