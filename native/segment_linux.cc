// How a segment comes to be, is found, checked and entered.
//
// Whoever enters holds an OFD read lock on the attach byte from before its first look at the header until its process
// entry is claimed; whoever (re-)initialises holds a write lock on it, and has seen no liveness token. So nobody
// enters a segment that is being made, and nobody remakes one that is being entered. The magic number is written last:
// a creator killed half way leaves a segment without one, and the next opener starts it again. The file is never
// unlinked: a name that goes while somebody still maps it would let a newcomer make a second segment, and two in.
#include "platform_linux.h"

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

// The same in every layout version. Far beyond the end of the file: the bytes exist only as lock ranges.
constexpr off_t kTokens = off_t{1} << 40;
constexpr off_t kTokensMax = off_t{1} << 20;
constexpr off_t kAttach = kTokens + kTokensMax;

constexpr int kPatienceMs = 10000;     // with an initialiser that does not finish
constexpr int kOwnerPatienceMs = 100;  // with a creator between open() and fchmod()
constexpr int kReopenMax = 16;         // how often the file may vanish between open() and the attach lock

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

// A file-size limit (RLIMIT_FSIZE) answers with a signal whose default is to end the process. Held back here, and
// taken away again unless somebody else had sent one before.
class HoldSizeSignal {
 public:
  HoldSizeSignal() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGXFSZ);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGXFSZ) == 1;
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~HoldSizeSignal() {
    const timespec none = {0, 0};
    if (!was_pending_) sigtimedwait(&set_, nullptr, &none);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t set_, before_;
  bool was_pending_;
};

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
      return Status::kPermission;
    default:
      return Status::kSystem;
  }
}

}  // namespace

uint32_t abi_fingerprint() {
  return libc_family() | static_cast<uint32_t>(sizeof(pthread_rwlock_t)) << 8 |
         static_cast<uint32_t>(sizeof(pthread_mutex_t)) << 16 | static_cast<uint32_t>(sizeof(void*)) << 24;
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
    status = open_file(name, group);
    if (ok(status)) status = lock_attach(F_RDLCK);
    if (ok(status)) status = prepare();
    if (ok(status)) status = check();  // removed while we waited for the attach lock: there may be a new one
  }
  *failure = failure_;
  return status;
}

Status LinuxPlatform::Memory::open_file(const char* name, int64_t group) {
  for (int waited = 0;; waited++) {
    // Without O_CREAT first: a sticky /dev/shm refuses O_CREAT on a file of another user (fs.protected_regular).
    fd_ = shm_open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd_ < 0 && errno == ENOENT) {
      fd_ = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, group < 0 ? 0600 : 0660);
      if (fd_ < 0 && errno == EEXIST) continue;
      if (fd_ >= 0) {
        if (group >= 0 && fchown(fd_, static_cast<uid_t>(-1), static_cast<gid_t>(group)) != 0) {
          const int error = errno;
          shm_unlink(name);  // nobody can have entered: it has not even the right group yet
          return fail(error);
        }
        if (fchmod(fd_, group < 0 ? 0600 : 0660) != 0) return fail(errno);  // against the umask
      }
    }
    // The name is right: what glibc calls EINVAL is a directory.
    if (fd_ < 0) return fail(errno == EINVAL ? EISDIR : errno);
    const Status status = check_owner(group);
    struct stat file;
    if (ok(status) || fstat(fd_, &file) != 0 || file.st_size != 0 || waited >= kOwnerPatienceMs)
      return status;
    close(fd_);
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

Status LinuxPlatform::Memory::lock_attach(short type) {
  for (int waited = 0;; waited++) {
    struct flock range = byte_range(type, kAttach, 1);
    if (fcntl(fd_, F_OFD_SETLK, &range) == 0) return Status::kOk;
    if (errno != EAGAIN && errno != EACCES && errno != EINTR) return fail(errno);
    if (waited >= kPatienceMs) return Status::kTimeout;
    sleep_ms(1);
  }
}

bool LinuxPlatform::Memory::anybody_alive() const {
  struct flock range = byte_range(F_WRLCK, kTokens, kTokensMax);
  return fcntl(fd_, F_OFD_GETLK, &range) != 0 || range.l_type != F_UNLCK;
}

Status LinuxPlatform::Memory::prepare() {
  bool unmade = false;
  Status status = inspect(&unmade);
  if (ok(status) && unmade) {
    // Not an upgrade: two upgraders would wait for each other. Looked at again, since somebody may have been faster.
    struct flock range = byte_range(F_UNLCK, kAttach, 1);
    fcntl(fd_, F_OFD_SETLK, &range);
    status = lock_attach(F_WRLCK);
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
  void* base = mmap(nullptr, LinuxLayout::kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  if (base == MAP_FAILED) return fail(errno);
  madvise(base, LinuxLayout::kBytes, MADV_DONTDUMP);
  base_ = static_cast<char*>(base);
  return Status::kOk;
}

// Decides from the head of the file, before anything of it is mapped.
Status LinuxPlatform::Memory::inspect(bool* unmade) {
  struct Head {
    uint64_t magic;
    uint32_t version, abi;
    uint64_t bytes;
    uint64_t rest[5];
  } head;
  memset(&head, 0, sizeof head);
  struct stat file;
  if (fstat(fd_, &file) != 0 || pread(fd_, &head, sizeof head, 0) < 0) return fail(errno);
  const size_t size = static_cast<size_t>(file.st_size);
  *unmade = false;
  if (head.magic == 0) {
    const Head empty = {};
    // A creator that was killed leaves nothing but zeros; a segment cut to nothing under living users does so as well.
    *unmade = memcmp(&head, &empty, sizeof head) == 0 ||
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
  return head.bytes == LinuxLayout::kBytes && size == LinuxLayout::kBytes ? Status::kOk : Status::kCorrupt;
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
  LinuxPlatform::init(&header->guard);
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

bool LinuxPlatform::Memory::is_ours() const {
  struct stat file;
  return fstat(fd_, &file) == 0 && file.st_dev == device_ && file.st_ino == inode_;
}

Status LinuxPlatform::Memory::reserve(size_t offset, size_t bytes) {
  if (base_ != nullptr && !is_ours()) return fail(EBADF);
  HoldSizeSignal hold;
  int error;
  do {
    error = posix_fallocate(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes));
  } while (error == EINTR);
  return error == 0 ? Status::kOk : fail(error);
}

void LinuxPlatform::Memory::attached() {
  struct flock range = byte_range(F_UNLCK, kAttach, 1);
  fcntl(fd_, F_OFD_SETLK, &range);
}

bool LinuxPlatform::Memory::claim(uint32_t process, const ProcessIdentity& self) {
  struct flock range = byte_range(F_WRLCK, kTokens + process, 1);
  if (fcntl(fd_, F_OFD_SETLK, &range) != 0) return false;
  self_ = process;
  identity_ = self;
  return true;
}

Liveness LinuxPlatform::Memory::liveness(uint32_t process, const ProcessIdentity& identity) const {
  if (process == self_) return Liveness::kAlive;  // GETLK does not report our own locks
  struct flock range = byte_range(F_WRLCK, kTokens + process, 1);
  if (fcntl(fd_, F_OFD_GETLK, &range) != 0) return Liveness::kAlive;  // not known to be dead
  // On another file nobody holds a token: not a death.
  if (range.l_type == F_UNLCK) return is_ours() ? Liveness::kDead : Liveness::kAlive;
  // The token can outlive its process in a descriptor that a raw fork() copied. In our own PID namespace, ask for more.
  if (identity_.same_namespace(identity) && kill(identity.pid, 0) != 0 && errno == ESRCH)
    return Liveness::kDead;
  return Liveness::kAlive;
}

Status LinuxPlatform::Memory::check() const {
  struct stat file;
  if (fstat(fd_, &file) != 0) return status_of(errno);
  if (file.st_dev != device_ || file.st_ino != inode_) return Status::kSystem;
  if (file.st_nlink == 0) return Status::kRemoved;
  return static_cast<size_t>(file.st_size) < LinuxLayout::kBytes ? Status::kCorrupt : Status::kOk;
}

void LinuxPlatform::Memory::reset() {
  if (fd_ >= 0 && (base_ == nullptr || is_ours())) close(fd_);
  if (base_ != nullptr) munmap(base_, LinuxLayout::kBytes);
  base_ = nullptr;
  fd_ = -1;
}

}  // namespace proclock

#endif  // __linux__
