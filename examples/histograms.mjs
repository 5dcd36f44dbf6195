// How long locks are waited for, and held, as OpenTelemetry histograms: what the channels say, given to a meter.
import { subscribe, tracingChannel } from 'node:diagnostics_channel';
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics';
import { channels, SharedLock } from 'proclock';

// A program would export to a collector, and name its locks with care: each name is a time series of its own.
const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
const provider = new MeterProvider({ readers: [new PeriodicExportingMetricReader({ exporter })] });
const meter = provider.getMeter('proclock');
const waits = meter.createHistogram('proclock.wait.duration', { unit: 's' });
const holds = meter.createHistogram('proclock.hold.duration', { unit: 's' });

function noteWait({ name, namespace, mode, contended, waitMs, error }) {
  waits.record(waitMs / 1000, {
    name,
    namespace,
    mode,
    contended,
    ...(error && { 'error.type': error.code }),
  });
}

// `end` is the last event of an acquire that blocks, `asyncEnd` that of one that does not.
tracingChannel(channels.acquire).subscribe({
  end: (event) => event.sync && noteWait(event),
  asyncEnd: noteWait,
});
subscribe(channels.release, ({ name, namespace, mode, holdMs }) =>
  holds.record(holdMs / 1000, { name, namespace, mode }),
);

const lock = new SharedLock('ledger');
const guard = await lock.exclusive();
const waiting = lock.shared();
const refused = await lock.shared({ timeout: 20 }).catch(({ code }) => code);
guard.release();
(await waiting).release();
lock.exclusiveSync(() => {});

await provider.forceFlush();
const [{ scopeMetrics }] = exporter.getMetrics();
for (const { descriptor, dataPoints } of scopeMetrics[0].metrics) {
  const counts = dataPoints.map(({ attributes, value }) => {
    const { mode, contended, 'error.type': error } = attributes;
    return `${value.count} ${mode}${contended ? ', contended' : ''}${error ? `, ${error}` : ''}`;
  });
  console.log(`${descriptor.name} (${descriptor.unit}): ${counts.sort().join('; ')}`);
}
console.log(`refused: ${refused}`);
await provider.shutdown();
