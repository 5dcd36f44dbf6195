// One open segment: the only owner of its file descriptor and mapping, and of this process's token in it.
#pragma once

// Included by system.h, when there is a System.
namespace proclock {

class SegmentMemory {
 public:
  SegmentMemory() = default;
  ~SegmentMemory() { reset(); }
  SegmentMemory(const SegmentMemory&) = delete;
  SegmentMemory& operator=(const SegmentMemory&) = delete;

  // `name` is a name as shm_open() takes them, with a slash first; `group` a gid, or -1 for a namespace of this user alone. On success the attach phase
  // has begun: until attached(), no newcomer can re-initialise the segment.
  Status open(const char* name, int64_t group, OpenFailure* failure, Opening opening = Opening::kMake);
  void attached();
  // Gives the file of a namespace back. kBusy: somebody is alive in it, or enters it at this moment. Leaves this object empty.
  // Without `remove` it only says whether that could be done.
  Status prune(const char* name, int64_t group, OpenFailure* failure, bool remove = true);

  char* base() const { return base_; }
  Status reserve(size_t offset, size_t bytes);

  // The token of a number: an OFD lock on one byte beyond the end of the file, which the kernel drops together with the last
  // reference to the open file (File::keep), that is, when the process is gone and can no longer touch the segment.
  bool claim(uint64_t number);
  uint64_t number() const { return number_; }
  bool can_ask() const { return is_ours(); }
  Liveness liveness(uint64_t number) const;
  Liveness liveness(const ProcessIdentity& identity) const;

  // kRemoved when the file's name is gone, kCorrupt when the file shrank under us.
  Status check() const;
  // Lets go of mapping and descriptor. Unlocks nothing itself: the child of a fork() shares our description and with it
  // our token.
  void reset();
  // The same in such a child, which has not inherited the mapping: it is somebody else's place by now.
  void reset_after_fork();

 private:
  Status open_file(const char* name, int64_t group, bool create);
  Status create_file(const char* name, int64_t group);
  Status check_owner(int64_t group) const;
  Status check_name();
  Status prepare(const char* name, Opening opening);
  Status inspect(bool* unmade);
  Status initialise(const char* name);
  Status map();
  Status lock_attach(short type);
  bool lock_byte(short type, int64_t start) const;
  bool is_locked(int64_t start, int64_t length, bool if_untold = true) const;
  bool anybody_alive() const;
  Status fail(int error);
  // Is the descriptor still the file that is mapped? A host that daemonizes closes it, and the number is used again.
  bool is_ours() const;

  System::File file_;
  int fd_ = -1;
  uint64_t device_ = 0;
  uint64_t inode_ = 0;
  char* base_ = nullptr;
  uint64_t number_ = 0;
  ProcessIdentity self_;
  OpenFailure failure_;
};

// The family of builds that can share a segment, and the sizes of what it puts there: others must not.
uint32_t abi_fingerprint();

}  // namespace proclock
