// Locks as a table: one row a holder, waiter or mark.
import type { LockInfo } from '../common/types';
import type { LockState } from './locks';
import type { Line, Style } from './screen';
import { ageOf, commandOf, printable, seconds, whoOf } from './text';

interface Row {
  readonly lock: string;
  readonly style: Style;
  readonly state: string;
  readonly who: string;
  readonly age: string;
  readonly command: string;
}

const HEAD: Row = { lock: 'LOCK', style: 'dim', state: 'STATE', who: 'PID', age: 'FOR', command: 'COMMAND' };

const nameOf = ({ group, name, namespace }: LockState): string =>
  `${group === undefined ? '' : `g${group}:`}${namespace}/${printable(name)}`;

function rowOf(lock: string, style: Style, state: string, info: LockInfo): Row {
  const isStopped = info.stopped === true;
  return {
    lock,
    style: isStopped ? 'red' : style,
    state,
    who: whoOf(info),
    age: ageOf(info),
    command: commandOf(info),
  };
}

function rowsOf(lock: LockState): Row[] {
  const { abandoned, deadlock, held, pending } = lock;
  const mark = deadlock ? ' (deadlock)' : '';
  const rows = [
    ...held.map((info) => {
      const style = info.mode === 'exclusive' ? 'green' : 'cyan';
      return rowOf('', style, `● holds ${info.mode}`, info);
    }),
    ...pending.map((info, place) => rowOf('', 'yellow', `○ waits ${info.mode}, number ${place + 1}`, info)),
  ];
  if (abandoned !== null) {
    const age = seconds(Date.now() - abandoned.since.getTime());
    const { pid, threadId } = abandoned;
    const who = `${pid}${threadId === 0 ? '' : `/${threadId}`}`;
    rows.push({ lock: '', style: 'red', state: '✖ abandoned by', who, age, command: '' });
  }
  return rows.map((row, index) => ({ ...row, lock: index === 0 ? `${nameOf(lock)}${mark}` : '' }));
}

/** With a head, each column as wide as it has to be. */
export function tableOf(locks: LockState[]): Line[] {
  const rows = locks.flatMap(rowsOf);
  if (rows.length === 0) return [];
  const all = [HEAD, ...rows];
  const width = (column: 'lock' | 'state' | 'who' | 'age'): number =>
    all.reduce((most, row) => Math.max(most, row[column].length), 0);
  const [lock, state, who, age] = [width('lock'), width('state'), width('who'), width('age')];
  return all.map((row) => [
    [row === HEAD ? 'dim' : 'bold', `${row.lock.padEnd(lock)}  `],
    [row.style, `${row.state.padEnd(state)}  `],
    [row === HEAD ? 'dim' : '', `${row.who.padEnd(who)}  ${row.age.padStart(age)}`],
    ['dim', row.command === '' ? '' : `  ${row.command}`],
  ]);
}

/** One lock in one line. */
export function lineOfLock(lock: LockState): string {
  const { abandoned, deadlock, held, pending } = lock;
  const who = (info: LockInfo): string => {
    const command = commandOf(info);
    return `${whoOf(info)} for ${ageOf(info)}${command === '' ? '' : ` (${command})`}`;
  };
  const holders = held.length === 0 ? 'free' : `held ${held[0]?.mode} by ${held.map(who).join(', ')}`;
  const waiters = pending.map((info) => `${info.mode} ${who(info)}`).join(', ');
  return [
    `${nameOf(lock)}: ${holders}`,
    waiters === '' ? 'nobody waits' : `waiting: ${waiters}`,
    ...(abandoned === null ? [] : [`abandoned by ${abandoned.pid}`]),
    ...(deadlock ? ['deadlock'] : []),
  ].join('; ');
}
