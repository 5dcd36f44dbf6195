#include "../system.h"

#ifdef PROCLOCK_LINUX

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

namespace proclock {

namespace {

constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, which older headers do not have
constexpr size_t kPieceBytes = 256 * 1024;

}  // namespace

int LinuxPlatform::File::open(const char* name, int flags, mode_t mode) {
  const int fd = above_standard(shm_open(name, flags, mode));
  if (fd < 0 && errno == EINVAL) errno = EISDIR;  // the name is right: what glibc calls so is a directory
  return fd;
}

int LinuxPlatform::File::unlink(const char* name) { return shm_unlink(name); }

// In pieces, because: a signal makes the kernel begin a piece again.
int LinuxPlatform::File::allocate(int fd, char*, size_t offset, size_t bytes) {
  for (size_t done = 0; done < bytes; done += kPieceBytes) {
    const size_t piece = bytes - done < kPieceBytes ? bytes - done : kPieceBytes;
    int error;
    do {
      error = posix_fallocate(fd, static_cast<off_t>(offset + done), static_cast<off_t>(piece));
    } while (error == EINTR);
    if (error != 0) return error;
  }
  return 0;
}

// The mapping can make pages as well, on newer kernels.
int LinuxPlatform::File::allocate_without(char* base, size_t offset, size_t bytes) {
  if (madvise(base + offset, bytes, kPopulateWrite) == 0) return 0;
  return errno == EFAULT ? ENOSPC : EBADF;
}

bool LinuxPlatform::File::keep_from_children(char* base, size_t bytes) {
  madvise(base, bytes, MADV_DONTDUMP);  // a core file can do with it
  return madvise(base, bytes, MADV_DONTFORK) == 0;
}

}  // namespace proclock

#endif  // PROCLOCK_LINUX
