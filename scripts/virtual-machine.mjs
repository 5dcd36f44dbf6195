// Runs a program on an arm64 Linux of its own, in qemu-system-aarch64: slower than qemu-user, but a real kernel.
// The machine consists of Debian's kernel and one file system in memory, made here.
import { spawnSync } from 'node:child_process';
import { closeSync, lstatSync, openSync, readdirSync, readFileSync, readlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/** The first process: it prepares what every Linux has, runs the suite, and switches the machine off. */
export const INIT = [
  '#include <fcntl.h>',
  '#include <stdio.h>',
  '#include <sys/mount.h>',
  '#include <sys/reboot.h>',
  '#include <sys/stat.h>',
  '#include <sys/wait.h>',
  '#include <unistd.h>',
  'static char *const environment[] = {"HOME=/tmp", "PATH=/bin", 0};',
  'int main(void) {',
  '  mkdir("/proc", 0755); mount("proc", "/proc", "proc", 0, 0);',
  '  mkdir("/sys", 0755); mount("sysfs", "/sys", "sysfs", 0, 0);',
  '  mkdir("/dev", 0755); mount("devtmpfs", "/dev", "devtmpfs", 0, 0);',
  '  mkdir("/dev/shm", 01777); mount("tmpfs", "/dev/shm", "tmpfs", 0, 0);',
  '  mkdir("/tmp", 01777);',
  '  int console = open("/dev/console", O_RDWR);',
  '  for (int fd = 0; fd < 3; fd++) dup2(console, fd);',
  '  pid_t child = fork();',
  '  if (child == 0) {',
  '    chdir("/app");',
  '    execle("/bin/node", "node", "main.cjs", (char *)0, environment);',
  '    _exit(127);',
  '  }',
  '  for (int status; wait(&status) != child;) continue;',
  '  sync();',
  '  reboot(RB_POWER_OFF);',
  '}',
];

/** What the program printed. `files`: where each file or folder of this machine is to be in that one. */
export function runInMachine(kernel, files, memoryFile) {
  writeArchive(memoryFile, files);
  const { stdout, stderr, error } = spawnSync(
    'qemu-system-aarch64',
    [
      ...[
        '-machine',
        'virt',
        '-cpu',
        'cortex-a57',
        '-smp',
        '2',
        '-m',
        '2G',
        '-nographic',
        '-no-reboot',
        '-nic',
        'none',
      ],
      ...['-kernel', kernel, '-initrd', memoryFile, '-append', 'console=ttyAMA0 quiet panic=-1'],
    ],
    { encoding: 'utf8', timeout: 900_000, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  return `${stdout ?? ''}${stderr ?? ''}${error?.message ?? ''}`.replaceAll('\r', '');
}

/** A cpio archive of the kind that the kernel unpacks ("newc"). */
function writeArchive(file, files) {
  const fd = openSync(file, 'w');
  let inode = 1;
  const add = (name, mode, content) => {
    const fields = [inode++, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, Buffer.byteLength(name) + 1, 0];
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}${name}\0`;
    writeSync(fd, pad(Buffer.from(header)));
    writeSync(fd, pad(content));
  };
  const addTree = (name, path) => {
    const stat = lstatSync(path);
    if (stat.isSymbolicLink()) add(name, stat.mode, Buffer.from(readlinkSync(path)));
    else if (stat.isFile()) add(name, stat.mode, readFileSync(path));
    if (!stat.isDirectory()) return;
    add(name, stat.mode | 0o755, Buffer.alloc(0));
    for (const entry of readdirSync(path)) addTree(`${name}/${entry}`, join(path, entry));
  };
  const made = new Set();
  for (const [name, path] of Object.entries(files)) {
    const [parent] = name.split('/');
    if (parent !== name && !made.has(parent)) add(parent, 0o40755, Buffer.alloc(0));
    made.add(parent);
    addTree(name, path);
  }
  add('TRAILER!!!', 0, Buffer.alloc(0));
  closeSync(fd);
}

function pad(data) {
  return Buffer.concat([data, Buffer.alloc(-data.length & 3)]);
}
