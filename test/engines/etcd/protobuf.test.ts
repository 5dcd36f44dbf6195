// The codec, against bytes that were written by another one.
import { status, txn, watch } from '../../../lib/engines/etcd/messages';
import { type Description, decode, encode } from '../../../lib/engines/etcd/protobuf';

const all: Description = {
  int: [1, 'int'],
  id: [2, 'id'],
  bool: [3, 'bool'],
  bytes: [4, 'bytes'],
  string: [5, 'string'],
  inner: [6, () => all],
  many: [7, 'int', 'many'],
  inners: [8, () => all, 'many'],
};

const empty = {
  int: 0,
  id: 0n,
  bool: false,
  bytes: Buffer.alloc(0),
  string: '',
  inner: undefined,
  many: [],
  inners: [],
};

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');

describe('a message', () => {
  test.each<[string, object, string]>([
    ['150, as in the manual of Protocol Buffers', { int: 150 }, '08 9601'],
    ['"testing", as there', { string: 'testing' }, '2a 07 74657374696e67'],
    ['a message in it, as there', { inner: { int: 150 } }, '32 03 08 9601'],
    ['-1', { int: -1 }, '08 ffffffffffffffffff01'],
    ['the greatest number of 64 bits', { id: 2n ** 64n - 1n }, '10 ffffffffffffffffff01'],
    ['2 ** 53 - 1', { int: Number.MAX_SAFE_INTEGER }, '08 ffffffffffffff0f'],
    ['true', { bool: true }, '18 01'],
    ['bytes', { bytes: Buffer.of(0, 255) }, '22 02 00ff'],
    ['many numbers', { many: [1, 128, 0] }, '38 01 38 8001 38 00'],
    ['nothing', {}, ''],
  ])('with %s', (_, message, bytes) => {
    expect(encode(all, message)).toEqual(hex(bytes));
    const read = decode(all, hex(bytes));
    const { inner } = message as { inner?: object };
    expect(read).toEqual({ ...empty, ...message, ...(inner && { inner: { ...empty, ...inner } }) });
  });

  test('with many messages', () => {
    const bytes = encode(all, { inners: [{ int: 1 }, { string: 'two' }] });
    expect(decode(all, bytes).inners).toEqual([
      { ...empty, int: 1 },
      { ...empty, string: 'two' },
    ]);
  });

  test('of a later version is read as far as it is known', () => {
    const unknown = `${'98 06 01'} ${'a1 06 0102030405060708'} ${'aa 06 03 616263'} ${'b5 06 01020304'}`;
    expect(decode(all, hex(`${unknown} 08 07`))).toEqual({ ...empty, int: 7 });
  });

  test.each([
    ['in a number', '08 96'],
    ['in bytes', '22 05 00'],
    ['in what is unknown', 'a1 06 00'],
  ])('that ends %s is an error', (_, bytes) => {
    expect(() => decode(all, hex(bytes))).toThrow(RangeError);
  });

  test.each([
    ['a number of more than 64 bits', '08 ffffffffffffffffffffff01'],
    ['a number where bytes have to be', '20 01'],
    ['bytes where a number has to be', '0a 00'],
    ['a type that there is not', '9f 06'],
  ])('with %s is an error', (_, bytes) => {
    expect(() => decode(all, hex(bytes))).toThrow(RangeError);
  });

  test('with a field that is not in the description is an error', () => {
    expect(() => encode(all, { nonsense: 1 })).toThrow(TypeError);
  });
});

describe('a message of etcd', () => {
  test('the question of a transaction', () => {
    const key = Buffer.from('k');
    const bytes = txn.serialize({
      compare: [{ result: 0, target: 1, key, createRevision: 0, rangeEnd: Buffer.from('l') }],
      success: [{ put: { key, value: Buffer.from('v'), lease: 5n } }],
      failure: [{ range: { key, limit: 1 } }],
    });
    expect(bytes).toEqual(
      hex('0a 0d 0800 1001 1a016b 2800 8204016c 12 0a 1208 0a016b 120176 1805 1a 07 0a05 0a016b 1801'),
    );
  });

  test('the answer to one', () => {
    const bytes = '0a 02 1809 10 01 1a 00 1a 10 0a0e 120a 0a016b 1003 1804 2a0176 2001';
    expect(txn.deserialize(hex(bytes))).toMatchObject({
      header: { revision: 9 },
      succeeded: true,
      responses: [
        {},
        {
          range: {
            kvs: [{ key: Buffer.from('k'), createRevision: 3, modRevision: 4, value: Buffer.from('v') }],
          },
        },
      ],
    });
  });

  test('a watch that was refused', () => {
    expect(watch.deserialize(hex('10 ffffffffffffffffff01 18 01 20 01 32 02 6e6f'))).toMatchObject({
      watchId: -1,
      created: true,
      canceled: true,
      cancelReason: 'no',
      events: [],
    });
  });

  test('the version', () => {
    expect(status.deserialize(hex('1206 332e342e3233 1801'))).toMatchObject({ version: '3.4.23' });
  });
});
