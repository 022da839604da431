import { definePlugin } from '#core'
import { Agent, Tool } from '#contracts/agents'
import { Calculator } from './calculator.ts'
import { codeAgent, codeTool } from './code.ts'
import { config } from './config.ts'
import { calculatorTool, mathAgent } from './math.ts'
import { Sandbox } from './sandbox.ts'

export default definePlugin({
  name: 'agent-pack-core',
  summary: 'Agents that come with Backplane: math, which computes with a real expression engine',
  config,
  contributes: [Agent, Tool],
  setup(ctx) {
    const calculator = ctx.own(new Calculator(ctx.config, ctx.clock, ctx.log))
    ctx.contribute(Tool, calculatorTool(calculator))
    ctx.contribute(Agent, mathAgent)
    ctx.contribute(Tool, codeTool(ctx.own(new Sandbox(ctx.config.code, ctx.clock, ctx.log))))
    ctx.contribute(Agent, codeAgent)
  },
})
