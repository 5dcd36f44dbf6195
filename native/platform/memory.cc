// How a segment comes to be, is found, checked and entered.
//
// Whoever enters holds an OFD read lock on the attach byte from before its first look at the header until its process
// entry is live; whoever (re-)initialises holds a write lock on it, and has seen no liveness token. So nobody
// enters a segment that is being made, and nobody remakes one that is being entered. The magic number is written last:
// a creator killed half way leaves a segment without one, and the next opener starts it again. The file is never
// unlinked: a name that goes while somebody still maps it would let a newcomer make a second segment, and two in.
//
// What is a system's own about the file is its `File`: where it is, how pages of it come to be, and what else has to be true.
#include "system.h"

#ifdef PROCLOCK_SUPPORTED

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
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
// How often the file may vanish before we have the attach lock. Each time a pruner was faster; one that does nothing else is so
// every other time.
constexpr int kReopenMax = 256;

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

using SystemLayout = Layout<System>;

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
  return System::kAbiFamily | static_cast<uint32_t>(sizeof(System::RwLock)) << 8 |
         static_cast<uint32_t>(sizeof(void*)) << 24;
}

Status SegmentMemory::fail(int error) {
  failure_.error = error;
  return status_of(error);
}

Status SegmentMemory::open(const char* name, int64_t group, OpenFailure* failure, Opening opening) {
  const System::File::SizeSignalHeld held;
  Status status = Status::kRemoved;
  for (int attempt = 0; attempt < kReopenMax && status == Status::kRemoved; attempt++) {
    reset();
    status = open_file(name, group, opening == Opening::kMake);
    if (ok(status)) status = lock_attach(F_RDLCK);
    if (ok(status))
      status = check_name();  // pruned while we waited for the attach lock: there may be a new one
    if (ok(status)) status = prepare(name, opening);
    if (ok(status)) status = check();
  }
  if (opening == Opening::kFind && failure_.error == ENOENT) status = Status::kRemoved;
  *failure = failure_;
  return status;
}

// With the attach byte locked exclusively nobody enters, and who waits for it finds that the file has no name any more.
Status SegmentMemory::prune(const char* name, int64_t group, OpenFailure* failure, bool remove) {
  reset();
  Status status = open_file(name, group, false);
  if (ok(status) && !lock_byte(F_WRLCK, kAttach)) status = Status::kBusy;
  if (ok(status)) status = check_name();
  if (ok(status) && anybody_alive()) status = Status::kBusy;
  if (ok(status) && remove && System::File::unlink(name) != 0) status = fail(errno);
  if (failure_.error == ENOENT) status = Status::kRemoved;
  reset();
  *failure = failure_;
  return status;
}

// O_NONBLOCK: a lease that somebody has on the file would make open() wait until it is given up.
constexpr int kOpenFlags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;

Status SegmentMemory::create_file(const char* name, int64_t group) {
  fd_ = System::File::open(name, kOpenFlags | O_CREAT | O_EXCL, group < 0 ? 0600 : 0660);
  if (fd_ < 0) return fail(errno);
  if (group >= 0 && fchown(fd_, static_cast<uid_t>(-1), static_cast<gid_t>(group)) != 0) {
    const int error = errno;
    System::File::unlink(name);  // nobody can have entered: it has not even the right group yet
    return fail(error);
  }
  return fchmod(fd_, group < 0 ? 0600 : 0660) == 0 ? Status::kOk : fail(errno);  // against the umask
}

Status SegmentMemory::open_file(const char* name, int64_t group, bool create) {
  for (int waited = 0;; waited++) {
    // Without O_CREAT first: a sticky /dev/shm refuses O_CREAT on a file of another user (fs.protected_regular).
    fd_ = System::File::open(name, kOpenFlags, 0);
    if (fd_ < 0 && errno == ENOENT && create) {
      const Status status = create_file(name, group);
      if (fd_ < 0 && failure_.error == EEXIST && waited < kOwnerPatienceMs) continue;
      if (!ok(status)) return status;
      failure_ = {};
    }
    if (fd_ < 0) return fail(errno);
    const Status status = check_owner(group);
    struct stat file;
    if (ok(status) || fstat(fd_, &file) != 0 || file.st_size != 0 || waited >= kOwnerPatienceMs)
      return status;
    close(fd_);
    fd_ = -1;
    sleep_ms(1);
  }
}

Status SegmentMemory::check_owner(int64_t group) const {
  struct stat file;
  if (fstat(fd_, &file) != 0) return status_of(errno);
  const mode_t wanted = group < 0 ? 0600 : 0660;
  const bool ours = group < 0 ? file.st_uid == geteuid() : file.st_gid == static_cast<gid_t>(group);
  // A second name is one that somebody else gave to a file of ours, to have it initialised as a segment.
  const bool as_made = S_ISREG(file.st_mode) && (file.st_mode & 0777) == wanted && file.st_nlink <= 1;
  return as_made && ours ? Status::kOk : Status::kPermission;
}

bool SegmentMemory::lock_byte(short type, int64_t start) const {
  struct flock range = byte_range(type, start, 1);
  return fcntl(fd_, F_OFD_SETLK, &range) == 0;
}

// By somebody else than our own open file. Where the system can not tell at the moment, it is `if_untold`.
bool SegmentMemory::is_locked(int64_t start, int64_t length, bool if_untold) const {
  struct flock range = byte_range(F_WRLCK, start, length);
  return fcntl(fd_, F_OFD_GETLK, &range) != 0 ? if_untold : range.l_type != F_UNLCK;
}

Status SegmentMemory::lock_attach(short type) {
  for (int waited = 0;; waited++) {
    if (lock_byte(type, kAttach)) return Status::kOk;
    if (errno != EAGAIN && errno != EACCES && errno != EINTR) return fail(errno);
    if (waited >= kPatienceMs) return Status::kTimeout;
    sleep_ms(1);
  }
}

bool SegmentMemory::anybody_alive() const {
  return is_locked(kTokens, kAttach - kTokens) || is_locked(kAttach + 1, kTokensEnd - kAttach);
}

Status SegmentMemory::prepare(const char* name, Opening opening) {
  bool unmade = false;
  Status status = inspect(&unmade);
  if (ok(status) && unmade && opening == Opening::kFind) return fail(ENOENT);
  if (ok(status) && unmade) {
    // Not an upgrade: two upgraders would wait for each other. Looked at again, since somebody may have been faster.
    status = lock_byte(F_UNLCK, kAttach) ? lock_attach(F_WRLCK) : fail(errno);
    if (ok(status)) status = check_name();  // pruned while we had no lock
    if (ok(status)) status = inspect(&unmade);
    if (ok(status) && unmade) status = initialise(name);
    if (ok(status)) status = lock_attach(F_RDLCK);  // a conversion downwards is atomic
  }
  return ok(status) && base_ == nullptr ? map() : status;
}

Status SegmentMemory::map() {
  struct stat file;
  if (fstat(fd_, &file) != 0) return fail(errno);
  device_ = static_cast<uint64_t>(file.st_dev);
  inode_ = file.st_ino;
  self_ = System::self();
  void* base = mmap(nullptr, SystemLayout::kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (base == MAP_FAILED) return fail(errno);
  base_ = static_cast<char*>(base);
  // The child of a fork() shares our token: it must have nothing that it could use in our name.
  if (!System::File::keep_from_children(base_, SystemLayout::kBytes)) return fail(errno);
  const int error = file_.keep(fd_, base_);
  return error == 0 ? Status::kOk : fail(error);
}

// Decides from the head of the file, before anything of it is mapped.
Status SegmentMemory::inspect(bool* unmade) {
  using SegmentHeader = Header<System>;
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
              (head.version == kLayoutVersion && size == SystemLayout::kBytes);
    return *unmade && !anybody_alive() ? Status::kOk : Status::kCorrupt;
  }
  if (head.magic != kMagic) return Status::kCorrupt;
  if (head.version != kLayoutVersion || head.abi != abi_fingerprint()) {
    failure_.found_version = head.version;
    failure_.found_abi = head.abi;
    *unmade = true;
    return anybody_alive() ? Status::kIncompatible : Status::kOk;
  }
  if (!System::File::is_of_this_boot(fd_) && !anybody_alive()) {
    *unmade = true;  // what of it had been written when the machine went down, nobody knows
    return Status::kOk;
  }
  if (head.bytes != SystemLayout::kBytes || size != SystemLayout::kBytes) return Status::kCorrupt;
  uint64_t latch, last_number;
  memcpy(&latch, page + offsetof(SegmentHeader, latch), sizeof latch);
  memcpy(&last_number, page + offsetof(SegmentHeader, last_number), sizeof last_number);
  if ((latch & kLatchCorrupt) == 0 && last_number < kNumbersMax) return Status::kOk;
  *unmade = true;  // by its last users, who are gone
  return anybody_alive() ? Status::kCorrupt : Status::kOk;
}

Status SegmentMemory::initialise(const char* name) {
  if (ftruncate(fd_, 0) != 0 || !System::File::set_size(fd_, SystemLayout::kBytes)) return fail(errno);
  static constexpr size_t kFirstPages[] = {0,
                                           SystemLayout::kProcesses,
                                           SystemLayout::kLocks,
                                           SystemLayout::kStorages,
                                           SystemLayout::kSlots,
                                           SystemLayout::kExtents,
                                           SystemLayout::kBuckets};
  for (const size_t offset : kFirstPages) {
    const Status status = reserve(offset, kPage);
    if (ok(status)) continue;
    if (ftruncate(fd_, 0) != 0) return fail(errno);
    return status;
  }
  const Status mapped = map();
  if (!ok(mapped)) return mapped;
  const int refuted = System::File::prove(name, base_, kAttach);
  if (refuted != 0) {
    // Its name may have gone, by somebody who asks nobody, and be that of another file by now.
    const Status named = check_name();
    return ok(named) ? fail(refuted) : named;
  }
  System::File::sign(base_);

  auto* header = reinterpret_cast<Header<System>*>(base_);
  header->layout_version.store(kLayoutVersion, std::memory_order_relaxed);
  header->abi.store(abi_fingerprint(), std::memory_order_relaxed);
  header->bytes.store(SystemLayout::kBytes, std::memory_order_relaxed);
  header->created_ns.store(System::wall_ns(), std::memory_order_relaxed);
  header->processes.reserved.store(kPage / sizeof(Process<System>), std::memory_order_relaxed);
  header->locks.reserved.store(kPage / sizeof(Lock<System>), std::memory_order_relaxed);
  header->storages.reserved.store(kPage / sizeof(Storage<System>), std::memory_order_relaxed);
  header->slots.reserved.store(kPage / sizeof(Slot<System>), std::memory_order_relaxed);
  header->extents.reserved.store(kPage / sizeof(Extent<System>), std::memory_order_relaxed);
  header->buckets.reserved.store(kPage / sizeof(uint32_t), std::memory_order_relaxed);
  header->buckets.used.store(kBucketsMin, std::memory_order_relaxed);
  // release, because: whoever reads the magic number must find all of the above.
  header->magic.store(kMagic, std::memory_order_release);
  return Status::kOk;
}

Status SegmentMemory::check_name() {
  struct stat file;
  if (fstat(fd_, &file) != 0) return fail(errno);
  return file.st_nlink == 0 ? Status::kRemoved : Status::kOk;
}

// The same file is not enough: another copy of this addon, or this one after the host has closed our descriptor, may have
// opened the segment under the number that ours had. Through any open file but our own, our token is seen to be locked.
bool SegmentMemory::is_ours() const {
  struct stat file;
  return fstat(fd_, &file) == 0 && static_cast<uint64_t>(file.st_dev) == device_ && file.st_ino == inode_ &&
         (number_ == 0 || !is_locked(token_byte(number_), 1, false));
}

Status SegmentMemory::reserve(size_t offset, size_t bytes) {
  const System::File::SizeSignalHeld held;
  // A host that closes all descriptors closes ours as well, and may have used its number again.
  const bool ours = base_ == nullptr || is_ours();
  const int error =
      ours ? System::File::allocate(fd_, base_, offset, bytes) : file_.allocate_without(base_, offset, bytes);
  return error == 0 ? Status::kOk : fail(error);
}

void SegmentMemory::attached() {
  if (is_ours()) lock_byte(F_UNLCK, kAttach);
}

bool SegmentMemory::claim(uint64_t number) {
  if (!lock_byte(F_WRLCK, token_byte(number))) return false;
  if (token_byte(number) > kAttach && !lock_byte(F_RDLCK, kTokens)) return false;
  number_ = number;
  return true;
}

Liveness SegmentMemory::liveness(uint64_t number) const {
  if (number == number_) return Liveness::kAlive;  // GETLK does not report our own locks
  if (number == 0 || number > kNumbersMax) return Liveness::kDead;
  // On another file nobody holds a token: not a death.
  return is_locked(token_byte(number), 1) || !is_ours() ? Liveness::kAlive : Liveness::kDead;
}

// The token can outlive its process in a descriptor that a raw fork() copied. In our own PID namespace, ask for more.
Liveness SegmentMemory::liveness(const ProcessIdentity& identity) const {
  if (!identity.same_namespace(self_) || identity.pid <= 0) return Liveness::kAlive;
  if (kill(identity.pid, 0) != 0 && errno == ESRCH) return Liveness::kDead;
  if (self_.start_time == 0) return Liveness::kAlive;  // this system tells nothing of a process
  return System::has_ended(identity) ? Liveness::kDead : Liveness::kAlive;
}

Status SegmentMemory::check() const {
  struct stat file;
  if (fstat(fd_, &file) != 0) return status_of(errno);
  if (!is_ours()) return Status::kSystem;
  if (file.st_nlink == 0) return Status::kRemoved;
  return static_cast<size_t>(file.st_size) < SystemLayout::kBytes ? Status::kCorrupt : Status::kOk;
}

void SegmentMemory::reset() {
  if (fd_ >= 0 && (base_ == nullptr || is_ours())) close(fd_);
  file_.let_go();
  if (base_ != nullptr) munmap(base_, SystemLayout::kBytes);
  base_ = nullptr;
  fd_ = -1;
  number_ = 0;
}

void SegmentMemory::reset_after_fork() {
  if (fd_ >= 0 && (base_ == nullptr || is_ours())) close(fd_);
  file_.forget_after_fork();
  base_ = nullptr;
  fd_ = -1;
}

}  // namespace proclock

#endif  // PROCLOCK_SUPPORTED
