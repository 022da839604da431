/** How messages reach other processes. */
export interface Carrier extends AsyncDisposable {
  readonly connected: boolean
  send(channel: string, message: string): Promise<void>
}
export type Heard = (channel: string, message: string) => void

/** Sender, channel and JSON on lines of their own; JSON on one line has no line break in it. */
export const writeEnvelope = (sender: string, channel: string, message: string): string => `${sender}\n${channel}\n${message}`
/** Nothing of it if it is not one of ours. */
export const readEnvelope = (payload: string): readonly string[] => { const parts = payload.split('\n'); return parts.length === 3 ? parts : [] }
