import { z } from 'zod'
import { zoneOf } from './dates.ts'

export const config = z.strictObject({
  timeout_ms: z.int().min(50).max(20_000).default(1_000).describe('Milliseconds that one expression of the calculator may take'),
  memory_mb: z.int().min(32).max(1_024).default(96).describe('MiB of heap that the calculator\'s thread may have'),
  time_zone: z.string().refine(zone => zoneOf(zone) !== undefined, 'is no time zone that is known').default('UTC').describe('Time zone of dates and times of day that name none: Europe/Berlin'),
  code: z.strictObject({
    timeout_ms: z.int().min(50).max(20_000).default(5_000).describe('Milliseconds that one run of code may take'),
    memory_mb: z.int().min(16).max(512).default(64).describe('MiB that the code may use; its process has about 80 more'),
    max_output: z.int().min(1_000).max(30_000).default(16_000).describe('Bytes that the code may print, and characters of its result'),
    concurrency: z.int().min(1).max(16).default(2).describe('Runs of code at a time'),
  }).prefault({}).describe('The tool run_javascript'),
  documents: z.strictObject({
    paths: z.array(z.string().min(1)).max(100).default([]).describe('Files and folders to search; relative ones stand where Backplane is started'),
    extensions: z.array(z.string().regex(/^\.[a-z\d]+$/)).default(['.md', '.markdown', '.txt']).describe('Of the files that are taken from folders'),
    max_files: z.int().min(1).max(50_000).default(2_000).describe('Files at most; the rest is left out with a warning'),
    max_file_bytes: z.int().min(1).max(16_000_000).default(1_000_000).describe('Bytes of one file at most; larger ones are left out'),
    max_bytes: z.int().min(1).max(256_000_000).default(8_000_000).describe('Bytes of all files at most; in memory they take about twenty times as much'),
  }).prefault({}).describe('What the tool search_documents searches'),
})
export type Config = z.output<typeof config>
