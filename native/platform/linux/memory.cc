// How a segment comes to be, is found, checked and entered.
//
// Whoever enters holds an OFD read lock on the attach byte from before its first look at the header until its process
// entry is live; whoever (re-)initialises holds a write lock on it, and has seen no liveness token. So nobody
// enters a segment that is being made, and nobody remakes one that is being entered. The magic number is written last:
// a creator killed half way leaves a segment without one, and the next opener starts it again. The file is never
// unlinked: a name that goes while somebody still maps it would let a newcomer make a second segment, and two in.
#include "memory.h"
#include "size_signal.h"

#ifdef __linux__

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

namespace proclock {

namespace {

// Far beyond the end of the file: the bytes exist only as lock ranges. The first two ranges are the same in every layout version.
// Version 1 sees who is alive by the bytes of the first range alone, up to the attach byte. So a number has its byte there, as
// long as they last, and who has a greater one also shares the first byte.
constexpr off_t kTokens = off_t{1} << 40;
constexpr off_t kAttach = kTokens + (off_t{1} << 20);
constexpr off_t kTokensEnd = kTokens + (off_t{1} << 61) + 2;

constexpr off_t token_byte(uint64_t number) {
  const off_t byte = kTokens + static_cast<off_t>(number);
  return byte < kAttach ? byte : byte + 1;
}

constexpr int kPatienceMs = 1000;      // with an initialiser that does not finish
constexpr int kOwnerPatienceMs = 100;  // with a creator between open() and fchmod()
constexpr int kPopulateWrite = 23;     // MADV_POPULATE_WRITE, which older headers do not have
constexpr size_t kPieceBytes = 256 * 1024;
constexpr int kReopenMax = 16;  // how often the file may vanish between open() and the attach lock

struct flock byte_range(short type, off_t start, off_t length) {
  struct flock range;
  memset(&range, 0, sizeof range);
  range.l_type = type;
  range.l_whence = SEEK_SET;
  range.l_start = start;
  range.l_len = length;
  return range;
}

void sleep_ms(int ms) {
  timespec interval = {0, ms * 1000000L};
  nanosleep(&interval, nullptr);
}

constexpr uint32_t libc_family() {
#ifdef __GLIBC__
  return 1;
#else
  return 2;  // musl, the only other libc that Node runs on
#endif
}

Status status_of(int error) {
  switch (error) {
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
    case ENOMEM:
      return Status::kNoSpace;
    case EACCES:
    case EPERM:
    case ELOOP:
    case EISDIR:
    case EROFS:
    case EWOULDBLOCK:  // somebody has a lease on the file, and is asked to give it up: not ours to wait for
      return Status::kPermission;
    default:
      return Status::kSystem;
  }
}

}  // namespace

uint32_t abi_fingerprint() {
  return libc_family() | static_cast<uint32_t>(sizeof(pthread_rwlock_t)) << 8 |
         static_cast<uint32_t>(sizeof(void*)) << 24;
}

Status LinuxPlatform::Memory::fail(int error) {
  failure_.error = error;
  return status_of(error);
}

Status LinuxPlatform::Memory::open(const char* name, int64_t group, OpenFailure* failure) {
  HoldSizeSignal hold;
  Status status = Status::kRemoved;
  for (int attempt = 0; attempt < kReopenMax && status == Status::kRemoved; attempt++) {
    reset();
    status = open_file(name, group, true);
    if (ok(status)) status = lock_attach(F_RDLCK);
    if (ok(status))
      status = check_name();  // pruned while we waited for the attach lock: there may be a new one
    if (ok(status)) status = prepare();
    if (ok(status)) status = check();
  }
  *failure = failure_;
  return status;
}

// With the attach byte locked exclusively nobody enters, and who waits for it finds that the file has no name any more.
Status LinuxPlatform::Memory::prune(const char* name, int64_t group, OpenFailure* failure, bool remove) {
  reset();
  Status status = open_file(name, group, false);
  if (ok(status) && !lock_byte(F_WRLCK, kAttach)) status = Status::kBusy;
  if (ok(status)) status = check_name();
  if (ok(status) && anybody_alive()) status = Status::kBusy;
  if (ok(status) && remove && shm_unlink(name) != 0) status = fail(errno);
  if (failure_.error == ENOENT) status = Status::kRemoved;
  reset();
  *failure = failure_;
  return status;
}

// O_NONBLOCK: a lease that somebody has on the file would make open() wait until it is given up.
constexpr int kOpenFlags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;

Status LinuxPlatform::Memory::create_file(const char* name, int64_t group) {
  fd_ = shm_open(name, kOpenFlags | O_CREAT | O_EXCL, group < 0 ? 0600 : 0660);
  if (fd_ < 0) return fail(errno);
  if (group >= 0 && fchown(fd_, static_cast<uid_t>(-1), static_cast<gid_t>(group)) != 0) {
    const int error = errno;
    shm_unlink(name);  // nobody can have entered: it has not even the right group yet
    return fail(error);
  }
  return fchmod(fd_, group < 0 ? 0600 : 0660) == 0 ? Status::kOk : fail(errno);  // against the umask
}

Status LinuxPlatform::Memory::open_file(const char* name, int64_t group, bool create) {
  for (int waited = 0;; waited++) {
    // Without O_CREAT first: a sticky /dev/shm refuses O_CREAT on a file of another user (fs.protected_regular).
    fd_ = shm_open(name, kOpenFlags, 0);
    if (fd_ < 0 && errno == ENOENT && create) {
      const Status status = create_file(name, group);
      if (fd_ < 0 && failure_.error == EEXIST && waited < kOwnerPatienceMs) continue;
      if (!ok(status)) return status;
      failure_ = {};
    }
    // The name is right: what glibc calls EINVAL is a directory.
    if (fd_ < 0) return fail(errno == EINVAL ? EISDIR : errno);
    const Status status = check_owner(group);
    struct stat file;
    if (ok(status) || fstat(fd_, &file) != 0 || file.st_size != 0 || waited >= kOwnerPatienceMs)
      return status;
    close(fd_);
    fd_ = -1;
    sleep_ms(1);
  }
}

Status LinuxPlatform::Memory::check_owner(int64_t group) const {
  struct stat file;
  if (fstat(fd_, &file) != 0) return status_of(errno);
  const mode_t wanted = group < 0 ? 0600 : 0660;
  const bool ours = group < 0 ? file.st_uid == geteuid() : file.st_gid == static_cast<gid_t>(group);
  // A second name is one that somebody else gave to a file of ours, to have it initialised as a segment.
  const bool as_made = S_ISREG(file.st_mode) && (file.st_mode & 0777) == wanted && file.st_nlink <= 1;
  return as_made && ours ? Status::kOk : Status::kPermission;
}

bool LinuxPlatform::Memory::lock_byte(short type, int64_t start) const {
  struct flock range = byte_range(type, start, 1);
  return fcntl(fd_, F_OFD_SETLK, &range) == 0;
}

// By somebody else than our own open file. What can not be told is locked.
bool LinuxPlatform::Memory::is_locked(int64_t start, int64_t length) const {
  struct flock range = byte_range(F_WRLCK, start, length);
  return fcntl(fd_, F_OFD_GETLK, &range) != 0 || range.l_type != F_UNLCK;
}

Status LinuxPlatform::Memory::lock_attach(short type) {
  for (int waited = 0;; waited++) {
    if (lock_byte(type, kAttach)) return Status::kOk;
    if (errno != EAGAIN && errno != EACCES && errno != EINTR) return fail(errno);
    if (waited >= kPatienceMs) return Status::kTimeout;
    sleep_ms(1);
  }
}

bool LinuxPlatform::Memory::anybody_alive() const {
  return is_locked(kTokens, kAttach - kTokens) || is_locked(kAttach + 1, kTokensEnd - kAttach);
}

Status LinuxPlatform::Memory::prepare() {
  bool unmade = false;
  Status status = inspect(&unmade);
  if (ok(status) && unmade) {
    // Not an upgrade: two upgraders would wait for each other. Looked at again, since somebody may have been faster.
    status = lock_byte(F_UNLCK, kAttach) ? lock_attach(F_WRLCK) : fail(errno);
    if (ok(status)) status = inspect(&unmade);
    if (ok(status) && unmade) status = initialise();
    if (ok(status)) status = lock_attach(F_RDLCK);  // a conversion downwards is atomic
  }
  return ok(status) && base_ == nullptr ? map() : status;
}

Status LinuxPlatform::Memory::map() {
  struct stat file;
  if (fstat(fd_, &file) != 0) return fail(errno);
  device_ = file.st_dev;
  inode_ = file.st_ino;
  self_ = LinuxPlatform::self();
  void* base = mmap(nullptr, LinuxLayout::kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (base == MAP_FAILED) return fail(errno);
  base_ = static_cast<char*>(base);
  madvise(base, LinuxLayout::kBytes, MADV_DONTDUMP);  // a core file can do with it
  // The child of a fork() shares our token: it must have nothing that it could use in our name.
  return madvise(base, LinuxLayout::kBytes, MADV_DONTFORK) == 0 ? Status::kOk : fail(errno);
}

// Decides from the head of the file, before anything of it is mapped.
Status LinuxPlatform::Memory::inspect(bool* unmade) {
  using SegmentHeader = Header<LinuxPlatform>;
  struct Head {
    uint64_t magic;
    uint32_t version, abi;
    uint64_t bytes;
  };
  alignas(8) char page[sizeof(SegmentHeader)] = {};
  struct stat file;
  if (fstat(fd_, &file) != 0 || pread(fd_, page, sizeof page, 0) < 0) return fail(errno);
  const size_t size = static_cast<size_t>(file.st_size);
  Head head;
  memcpy(&head, page, sizeof head);
  *unmade = false;
  if (head.magic == 0) {
    static const char empty[64] = {};
    // A creator that was killed leaves nothing but zeros; a segment cut to nothing under living users does so as well.
    *unmade = memcmp(page, empty, sizeof empty) == 0 ||
              (head.version == kLayoutVersion && size == LinuxLayout::kBytes);
    return *unmade && !anybody_alive() ? Status::kOk : Status::kCorrupt;
  }
  if (head.magic != kMagic) return Status::kCorrupt;
  if (head.version != kLayoutVersion || head.abi != abi_fingerprint()) {
    failure_.found_version = head.version;
    failure_.found_abi = head.abi;
    *unmade = true;
    return anybody_alive() ? Status::kIncompatible : Status::kOk;
  }
  if (head.bytes != LinuxLayout::kBytes || size != LinuxLayout::kBytes) return Status::kCorrupt;
  uint64_t latch, last_number;
  memcpy(&latch, page + offsetof(SegmentHeader, latch), sizeof latch);
  memcpy(&last_number, page + offsetof(SegmentHeader, last_number), sizeof last_number);
  if ((latch & kLatchCorrupt) == 0 && last_number < kNumbersMax) return Status::kOk;
  *unmade = true;  // by its last users, who are gone
  return anybody_alive() ? Status::kCorrupt : Status::kOk;
}

Status LinuxPlatform::Memory::initialise() {
  if (ftruncate(fd_, 0) != 0 || ftruncate(fd_, static_cast<off_t>(LinuxLayout::kBytes)) != 0)
    return fail(errno);
  static constexpr size_t kFirstPages[] = {0,
                                           LinuxLayout::kProcesses,
                                           LinuxLayout::kLocks,
                                           LinuxLayout::kStorages,
                                           LinuxLayout::kSlots,
                                           LinuxLayout::kExtents,
                                           LinuxLayout::kBuckets};
  for (const size_t offset : kFirstPages) {
    const Status status = reserve(offset, kPage);
    if (ok(status)) continue;
    if (ftruncate(fd_, 0) != 0) return fail(errno);
    return status;
  }
  const Status mapped = map();
  if (!ok(mapped)) return mapped;

  auto* header = reinterpret_cast<Header<LinuxPlatform>*>(base_);
  header->layout_version.store(kLayoutVersion, std::memory_order_relaxed);
  header->abi.store(abi_fingerprint(), std::memory_order_relaxed);
  header->bytes.store(LinuxLayout::kBytes, std::memory_order_relaxed);
  header->created_ns.store(wall_ns(), std::memory_order_relaxed);
  header->processes.reserved.store(kPage / sizeof(Process<LinuxPlatform>), std::memory_order_relaxed);
  header->locks.reserved.store(kPage / sizeof(Lock<LinuxPlatform>), std::memory_order_relaxed);
  header->storages.reserved.store(kPage / sizeof(Storage<LinuxPlatform>), std::memory_order_relaxed);
  header->slots.reserved.store(kPage / sizeof(Slot<LinuxPlatform>), std::memory_order_relaxed);
  header->extents.reserved.store(kPage / sizeof(Extent<LinuxPlatform>), std::memory_order_relaxed);
  header->buckets.reserved.store(kPage / sizeof(uint32_t), std::memory_order_relaxed);
  header->buckets.used.store(kBucketsMin, std::memory_order_relaxed);
  // release, because: whoever reads the magic number must find all of the above.
  header->magic.store(kMagic, std::memory_order_release);
  return Status::kOk;
}

Status LinuxPlatform::Memory::check_name() {
  struct stat file;
  if (fstat(fd_, &file) != 0) return fail(errno);
  return file.st_nlink == 0 ? Status::kRemoved : Status::kOk;
}

// The same file is not enough: another copy of this addon, or this one after the host has closed our descriptor, may have
// opened the segment under the number that ours had. Through any open file but our own, our token is seen to be locked.
bool LinuxPlatform::Memory::is_ours() const {
  struct stat file;
  return fstat(fd_, &file) == 0 && file.st_dev == device_ && file.st_ino == inode_ &&
         (number_ == 0 || !is_locked(token_byte(number_), 1));
}

// In pieces, because: a signal makes the kernel begin a piece again.
Status LinuxPlatform::Memory::reserve(size_t offset, size_t bytes) {
  HoldSizeSignal hold;
  // Without the descriptor, which a host has closed, the mapping can make pages as well, on newer kernels.
  if (base_ != nullptr && !is_ours()) {
    if (madvise(base_ + offset, bytes, kPopulateWrite) == 0) return Status::kOk;
    return fail(errno == EFAULT ? ENOSPC : EBADF);
  }
  for (size_t done = 0; done < bytes; done += kPieceBytes) {
    const size_t piece = bytes - done < kPieceBytes ? bytes - done : kPieceBytes;
    int error;
    do {
      error = posix_fallocate(fd_, static_cast<off_t>(offset + done), static_cast<off_t>(piece));
    } while (error == EINTR);
    if (error != 0) return fail(error);
  }
  return Status::kOk;
}

void LinuxPlatform::Memory::attached() {
  if (is_ours()) lock_byte(F_UNLCK, kAttach);
}

bool LinuxPlatform::Memory::claim(uint64_t number) {
  if (!lock_byte(F_WRLCK, token_byte(number))) return false;
  if (token_byte(number) > kAttach && !lock_byte(F_RDLCK, kTokens)) return false;
  number_ = number;
  return true;
}

Liveness LinuxPlatform::Memory::liveness(uint64_t number) const {
  if (number == number_) return Liveness::kAlive;  // GETLK does not report our own locks
  if (number == 0 || number > kNumbersMax) return Liveness::kDead;
  // On another file nobody holds a token: not a death.
  return is_locked(token_byte(number), 1) || !is_ours() ? Liveness::kAlive : Liveness::kDead;
}

// The token can outlive its process in a descriptor that a raw fork() copied. In our own PID namespace, ask for more.
Liveness LinuxPlatform::Memory::liveness(const ProcessIdentity& identity) const {
  if (!identity.same_namespace(self_) || identity.pid <= 0) return Liveness::kAlive;
  if (kill(identity.pid, 0) != 0 && errno == ESRCH) return Liveness::kDead;
  if (self_.start_time == 0) return Liveness::kAlive;  // /proc is not there, or another PID namespace's
  const ProcessStat stat = read_stat(identity.pid);
  const bool another =
      identity.start_time != 0 && stat.start_time != 0 && stat.start_time != identity.start_time;
  const bool zombie = (stat.state == 'Z' || stat.state == 'X') && stat.threads <= 1;
  return another || zombie ? Liveness::kDead : Liveness::kAlive;
}

Status LinuxPlatform::Memory::check() const {
  struct stat file;
  if (fstat(fd_, &file) != 0) return status_of(errno);
  if (!is_ours()) return Status::kSystem;
  if (file.st_nlink == 0) return Status::kRemoved;
  return static_cast<size_t>(file.st_size) < LinuxLayout::kBytes ? Status::kCorrupt : Status::kOk;
}

void LinuxPlatform::Memory::reset() {
  if (fd_ >= 0 && (base_ == nullptr || is_ours())) close(fd_);
  if (base_ != nullptr) munmap(base_, LinuxLayout::kBytes);
  base_ = nullptr;
  fd_ = -1;
  number_ = 0;
}

void LinuxPlatform::Memory::reset_after_fork() {
  if (fd_ >= 0 && is_ours()) close(fd_);
  base_ = nullptr;
  fd_ = -1;
}

}  // namespace proclock

#endif  // __linux__
