/** The vendors' own wire formats, as they document them: what a model's turn looks like on the wire. */
/** `groq` and `xai` are OpenAI's chat completions, with what these vendors do otherwise. */
export type Format = 'openai' | 'responses' | 'anthropic' | 'google' | 'groq' | 'xai'
export interface Frame { readonly event?: string; readonly data: string }
export interface WireTurn {
  readonly id: string
  readonly model: string
  readonly text: readonly string[]
  readonly tools: readonly { readonly id: string; readonly name: string; readonly arguments: string }[]
  readonly finish: 'stop' | 'length' | 'tool-calls'
  readonly usage: { readonly input: number; readonly output: number; readonly cached: number }
}
interface Wire {
  whole(turn: WireTurn): unknown
  /** `pieces` are the content, one entry sent at a time. */
  stream(turn: WireTurn): { readonly head: Frame[]; readonly pieces: Frame[][]; readonly tail: Frame[] }
  /** The body of an error answer. */
  error(status: number, message: string, code?: string): unknown
  /** The error within a stream that had begun. */
  failure(message: string): Frame[]
}

const CREATED = 1_767_225_600
const frame = (value: unknown, event?: string): Frame => ({ data: JSON.stringify(value), ...(event !== undefined && { event }) })
const named = (value: { readonly type: string; readonly [key: string]: unknown }): Frame => frame(value, value.type)
const parsed = (text: string): unknown => { try { return JSON.parse(text) } catch { return text } }
const halves = (text: string): string[] => [text.slice(0, text.length >> 1), text.slice(text.length >> 1)]

function openai(dialect?: 'groq' | 'xai'): Wire {
  const finish = { stop: 'stop', length: 'length', 'tool-calls': 'tool_calls' } as const
  const usage = ({ input, output, cached }: WireTurn['usage']) =>
    ({ prompt_tokens: input, completion_tokens: output, total_tokens: input + output, prompt_tokens_details: { cached_tokens: cached }, completion_tokens_details: { reasoning_tokens: 0 } })
  return {
    whole: turn => ({
      id: turn.id, object: 'chat.completion', created: CREATED, model: turn.model, usage: usage(turn.usage),
      choices: [{
        index: 0, finish_reason: finish[turn.finish], logprobs: null,
        message: {
          role: 'assistant', content: turn.text.join('') || null, refusal: null,
          ...(turn.tools.length && { tool_calls: turn.tools.map(tool => ({ id: tool.id, type: 'function', function: { name: tool.name, arguments: tool.arguments } })) }),
        },
      }],
    }),
    stream(turn) {
      const base = { id: turn.id, object: 'chat.completion.chunk', created: CREATED, model: turn.model, system_fingerprint: 'fp_1' }
      const chunk = (delta: unknown, reason: string | null = null) => frame({ ...base, choices: [{ index: 0, delta, logprobs: null, finish_reason: reason }], usage: null })
      return {
        head: [chunk({ role: 'assistant', content: '', refusal: null })],
        pieces: [
          ...turn.text.map(content => [chunk({ content })]),
          ...turn.tools.map((tool, index) => (dialect === 'xai' ? [
            chunk({ tool_calls: [{ index, id: tool.id, type: 'function', function: { name: tool.name, arguments: tool.arguments } }] }),
          ] : [
            chunk({ tool_calls: [{ index, id: tool.id, type: 'function', function: { name: tool.name, arguments: '' } }] }),
            ...halves(tool.arguments).map(part => chunk({ tool_calls: [{ index, function: { arguments: part } }] })),
          ])),
        ],
        tail: dialect === 'groq'
          ? [frame({ ...base, choices: [{ index: 0, delta: {}, logprobs: null, finish_reason: finish[turn.finish] }], x_groq: { id: 'req_1', usage: usage(turn.usage) } }), { data: '[DONE]' }]
          : [chunk({}, finish[turn.finish]), frame({ ...base, choices: [], usage: usage(turn.usage) }), { data: '[DONE]' }],
      }
    },
    error: (status, message, code) => ({ error: { message, type: status === 401 ? 'invalid_request_error' : status === 429 ? 'requests' : 'server_error', param: null, code: code ?? null } }),
    failure: message => [frame({ error: { message, type: 'server_error', param: null, code: null } })],
  }
}

function responses(): Wire {
  const usage = ({ input, output, cached }: WireTurn['usage']) =>
    ({ input_tokens: input, input_tokens_details: { cached_tokens: cached }, output_tokens: output, output_tokens_details: { reasoning_tokens: 0 }, total_tokens: input + output })
  const call = (tool: WireTurn['tools'][number], args = tool.arguments) =>
    ({ type: 'function_call', id: `fc_${tool.id}`, call_id: tool.id, name: tool.name, arguments: args, status: 'completed' })
  const message = (turn: WireTurn) => ({ type: 'message', id: 'msg_1', status: 'completed', role: 'assistant', content: [{ type: 'output_text', text: turn.text.join(''), annotations: [] }] })
  const response = (turn: WireTurn) => ({
    id: turn.id, object: 'response', created_at: CREATED, model: turn.model, status: turn.finish === 'length' ? 'incomplete' : 'completed', error: null,
    incomplete_details: turn.finish === 'length' ? { reason: 'max_output_tokens' } : null,
    output: [...(turn.text.length ? [message(turn)] : []), ...turn.tools.map(tool => call(tool))], usage: usage(turn.usage),
  })
  return {
    whole: response,
    stream(turn) {
      const begun = { ...response(turn), status: 'in_progress', incomplete_details: null, output: [], usage: null }
      const first = turn.text.length ? 1 : 0
      return {
        head: [
          named({ type: 'response.created', response: begun }),
          ...(first ? [named({ type: 'response.output_item.added', output_index: 0, item: { type: 'message', id: 'msg_1', status: 'in_progress', role: 'assistant', content: [] } })] : []),
        ],
        pieces: [
          ...turn.text.map(delta => [named({ type: 'response.output_text.delta', item_id: 'msg_1', output_index: 0, content_index: 0, delta })]),
          ...turn.tools.map((tool, index) => [
            named({ type: 'response.output_item.added', output_index: first + index, item: { ...call(tool, ''), status: 'in_progress' } }),
            ...halves(tool.arguments).map(delta => named({ type: 'response.function_call_arguments.delta', item_id: `fc_${tool.id}`, output_index: first + index, delta })),
            named({ type: 'response.output_item.done', output_index: first + index, item: call(tool) }),
          ]),
        ],
        tail: [
          ...(first ? [named({ type: 'response.output_item.done', output_index: 0, item: message(turn) })] : []),
          named({ type: turn.finish === 'length' ? 'response.incomplete' : 'response.completed', response: response(turn) }),
        ],
      }
    },
    error: openai().error,
    failure: message => [named({ type: 'error', sequence_number: 9, error: { type: 'server_error', code: 'server_error', message, param: null } })],
  }
}

function anthropic(): Wire {
  const stop = { stop: 'end_turn', length: 'max_tokens', 'tool-calls': 'tool_use' } as const
  // Anthropic counts cached tokens apart from the others.
  const usage = ({ input, output, cached }: WireTurn['usage']) => ({ input_tokens: input - cached, cache_creation_input_tokens: 0, cache_read_input_tokens: cached, output_tokens: output })
  const types: Record<number, string> = {
    400: 'invalid_request_error', 401: 'authentication_error', 403: 'permission_error', 404: 'not_found_error', 413: 'request_too_large', 429: 'rate_limit_error', 529: 'overloaded_error',
  }
  return {
    whole: turn => ({
      id: turn.id, type: 'message', role: 'assistant', model: turn.model, stop_reason: stop[turn.finish], stop_sequence: null, usage: usage(turn.usage),
      content: [
        ...(turn.text.length ? [{ type: 'text', text: turn.text.join('') }] : []),
        ...turn.tools.map(tool => ({ type: 'tool_use', id: tool.id, name: tool.name, input: parsed(tool.arguments) })),
      ],
    }),
    stream(turn) {
      const first = turn.text.length ? 1 : 0
      return {
        head: [
          named({ type: 'message_start', message: { id: turn.id, type: 'message', role: 'assistant', model: turn.model, content: [], stop_reason: null, stop_sequence: null, usage: usage({ ...turn.usage, output: 1 }) } }),
          ...(first ? [named({ type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } })] : []), named({ type: 'ping' }),
        ],
        pieces: [
          ...turn.text.map(text => [named({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } })]),
          ...turn.tools.map((tool, index) => [
            named({ type: 'content_block_start', index: first + index, content_block: { type: 'tool_use', id: tool.id, name: tool.name, input: {} } }),
            ...halves(tool.arguments).map(part => named({ type: 'content_block_delta', index: first + index, delta: { type: 'input_json_delta', partial_json: part } })),
            named({ type: 'content_block_stop', index: first + index }),
          ]),
        ],
        tail: [
          ...(first ? [named({ type: 'content_block_stop', index: 0 })] : []),
          named({ type: 'message_delta', delta: { stop_reason: stop[turn.finish], stop_sequence: null }, usage: { output_tokens: turn.usage.output } }),
          named({ type: 'message_stop' }),
        ],
      }
    },
    error: (status, message, code) => ({ type: 'error', error: { type: code ?? types[status] ?? 'api_error', message }, request_id: 'req_1' }),
    failure: message => [named({ type: 'error', error: { type: 'overloaded_error', message } })],
  }
}

function google(): Wire {
  const reason = { stop: 'STOP', length: 'MAX_TOKENS', 'tool-calls': 'STOP' } as const
  const usage = ({ input, output, cached }: WireTurn['usage']) =>
    ({ promptTokenCount: input, candidatesTokenCount: output, totalTokenCount: input + output, ...(cached && { cachedContentTokenCount: cached }) })
  const names: Record<number, string> = {
    400: 'INVALID_ARGUMENT', 401: 'UNAUTHENTICATED', 403: 'PERMISSION_DENIED', 404: 'NOT_FOUND', 429: 'RESOURCE_EXHAUSTED', 500: 'INTERNAL', 503: 'UNAVAILABLE',
  }
  const call = (tool: WireTurn['tools'][number]) => ({ functionCall: { name: tool.name, args: parsed(tool.arguments) } })
  const answer = (turn: WireTurn, parts: unknown[], last?: boolean) => ({
    candidates: [{ content: { role: 'model', parts }, index: 0, ...(last && { finishReason: reason[turn.finish] }) }],
    usageMetadata: last ? usage(turn.usage) : { promptTokenCount: turn.usage.input }, modelVersion: turn.model, responseId: turn.id,
  })
  return {
    whole: turn => answer(turn, [...(turn.text.length ? [{ text: turn.text.join('') }] : []), ...turn.tools.map(call)], true),
    stream: turn => ({
      head: [],
      pieces: [...turn.text.map(text => [frame(answer(turn, [{ text }]))]), ...turn.tools.map(tool => [frame(answer(turn, [call(tool)]))])],
      tail: [frame(answer(turn, [{ text: '' }], true))],
    }),
    error: (status, message, code) => ({ error: { code: status, message, status: code ?? names[status] ?? 'UNKNOWN' } }),
    failure: message => [frame({ error: { code: 503, message, status: 'UNAVAILABLE' } })],
  }
}

export const formats: Readonly<Record<Format, Wire>> = { openai: openai(), responses: responses(), anthropic: anthropic(), google: google(), groq: openai('groq'), xai: openai('xai') }
