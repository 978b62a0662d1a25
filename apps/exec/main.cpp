/// coppice-exec: the last step into a build sandbox. bwrap cannot set argv[0], leaves descriptors open, and its own
/// environment must not be the builder's; so it starts this program, by descriptor, since no file of ours shall be
/// visible inside. Statically linked, because inside there may be no libc.
///
/// It also mounts the inputs: bwrap reads the whole list of mounts for each one that it makes, so that a few hundred of
/// them take it seconds.
///
/// Descriptor 4 is this program, 5 the order: NUL-terminated strings personality, limit of processes (0: none), store
/// directory, number of inputs, inputs, builder, number of arguments, arguments, environment. Descriptor 6 takes the
/// report: "r" once the sandbox stands, then what execve refused.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <initializer_list>

namespace {

constexpr int order_fd = 5, report_fd = 6;

/// Ends with the reason in the report, which our parent reads, and in the log.
[[noreturn]] void refuse(const char* what) {
  const char* why = strerror(errno);
  for (int fd : {report_fd, 2})
    for (const char* text : {what, ": ", why, fd == 2 ? "\n" : ""})
      if (write(fd, text, strlen(text)) < 0) break;
  _exit(127);
}

/// The numbers of the calls that are refused, in one architecture; 0 for one that it lacks.
struct calls {
  unsigned int arch, chmod, fchmod, fchmodat, fchmodat2, setxattr, lsetxattr, fsetxattr, setxattrat;
};
constexpr calls refused[] = {
#if defined(__x86_64__)
    {AUDIT_ARCH_X86_64, SYS_chmod, SYS_fchmod, SYS_fchmodat, 452, SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, 463},
    {AUDIT_ARCH_I386, 15, 94, 306, 452, 226, 227, 228, 463},
#elif defined(__aarch64__)
    {AUDIT_ARCH_AARCH64, 0, SYS_fchmod, SYS_fchmodat, 452, SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, 463},
#else
    {},
#endif
};

constexpr unsigned int word(size_t at) {
  return static_cast<unsigned int>(at);
}

/// No set-user-id bits and no extended attributes, as in Nix: what a builder sees of them must not depend on the
/// machine. System calls of other architectures pass; outputs are stripped afterwards anyway.
void filter_system_calls() {
  sock_filter program[128];
  unsigned short n = 0;
  auto add = [&](unsigned short code, unsigned int k, unsigned char yes = 0, unsigned char no = 0) {
    program[n++] = sock_filter{code, yes, no, k};
  };
  constexpr unsigned short load = BPF_LD | BPF_W | BPF_ABS, equal = BPF_JMP | BPF_JEQ | BPF_K, ret = BPF_RET | BPF_K;
  auto refuse_mode = [&](unsigned int call, unsigned int argument) {
    if (call == 0) return;
    add(equal, call, 0, 4);
    add(load, word(offsetof(seccomp_data, args)) + 8 * argument);
    add(BPF_JMP | BPF_JSET | BPF_K, S_ISUID | S_ISGID, 0, 1);
    add(ret, SECCOMP_RET_ERRNO | EPERM);
    add(ret, SECCOMP_RET_ALLOW);
  };
  auto refuse_call = [&](unsigned int call) {
    add(equal, call, 0, 1);
    add(ret, SECCOMP_RET_ERRNO | ENOTSUP);
  };
  add(load, word(offsetof(seccomp_data, arch)));
  for (const calls& c : refused) {
    const auto start = n;
    add(equal, c.arch);
    add(load, word(offsetof(seccomp_data, nr)));
    refuse_mode(c.chmod, 1);
    refuse_mode(c.fchmod, 1);
    refuse_mode(c.fchmodat, 2);
    refuse_mode(c.fchmodat2, 2);
    for (unsigned int call : {c.setxattr, c.lsetxattr, c.fsetxattr, c.setxattrat})
      refuse_call(call);
    add(ret, SECCOMP_RET_ALLOW);
    program[start].jf = static_cast<unsigned char>(n - start - 1);
  }
  add(ret, SECCOMP_RET_ALLOW);
  sock_fprog filter{n, program};
  // a kernel without seccomp builds too: ignored
  prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

constexpr const char* inputs_dir = "/dev/shm";

/// A place in the store to mount the input on.
void make_place(int from, int store, const char* input) {
  struct stat s {};
  if (fstatat(from, input, &s, AT_SYMLINK_NOFOLLOW) < 0) refuse(input);
  if (S_ISDIR(s.st_mode)) {
    if (mkdirat(store, input, 0755) < 0) refuse(input);
    return;
  }
  const int fd = openat(store, input, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0644);
  if (fd < 0) refuse(input);
  close(fd);
}

/// Binds inputs into the store directory, from the store of the machine, which bwrap has put read-only where the empty
/// /dev/shm comes afterwards. What is bound is read-only as that is. The builder cannot take /dev/shm away again:
/// whatever rights it may get in a namespace of its own, the mounts that it has from us are locked together.
void mount_inputs(const char* store, char** inputs, size_t count) {
  if (unshare(CLONE_NEWNS) < 0) refuse("cannot make a mount namespace");
  const int from = open(inputs_dir, O_PATH | O_DIRECTORY), to = open(store, O_PATH | O_DIRECTORY);
  if (from < 0 || to < 0) refuse("cannot find the stores");
  char source[PATH_MAX], target[PATH_MAX];
  for (size_t i = 0; i < count; ++i) {
    make_place(from, to, inputs[i]);
    snprintf(source, sizeof source, "%s/%s", inputs_dir, inputs[i]);
    snprintf(target, sizeof target, "%s/%s", store, inputs[i]);
    if (mount(source, target, nullptr, MS_BIND, nullptr) < 0) refuse(inputs[i]);
  }
  close(from);
  close(to);
  if (mount("tmpfs", inputs_dir, "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777") < 0) refuse("cannot make /dev/shm");
}

/// Nothing that was needed for mounting is left, nor can be had again.
void drop_capabilities() {
  for (unsigned long capability = 0; prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0;)
    ++capability;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 || syscall(SYS_capset, &header, none) < 0)
    refuse("cannot drop capabilities");
}

char* next(char*& at, const char* end) {
  if (at >= end) {
    errno = EBADMSG;
    refuse("cannot read the order");
  }
  char* text = at;
  at += strlen(at) + 1;
  return text;
}

} // namespace

int main() {
  struct stat order {};
  if (fstat(order_fd, &order) < 0) refuse("cannot find the order");
  const auto size = static_cast<size_t>(order.st_size);
  auto* at = static_cast<char*>(mmap(nullptr, size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, order_fd, 0));
  if (at == MAP_FAILED) refuse("cannot read the order");
  const char* end = at + size;
  const auto persona = strtoul(next(at, end), nullptr, 10);
  const auto processes = strtoul(next(at, end), nullptr, 10);
  const char* store = next(at, end);
  const auto inputs_count = strtoul(next(at, end), nullptr, 10);
  auto** inputs = static_cast<char**>(calloc(inputs_count + 1, sizeof(char*)));
  if (!inputs) refuse("cannot keep the order");
  for (size_t i = 0; i < inputs_count; ++i)
    inputs[i] = next(at, end);
  char* builder = next(at, end);
  const auto count = strtoul(next(at, end), nullptr, 10);
  size_t strings = 0;
  for (const char* p = at; p < end; ++p)
    strings += *p == '\0';
  auto** pointers = static_cast<char**>(calloc(strings + 2, sizeof(char*)));
  if (!pointers || count > strings) refuse("cannot keep the order");
  char **argv = pointers, **env = pointers + count + 1;
  for (size_t i = 0; i < count; ++i)
    argv[i] = next(at, end);
  for (size_t i = 0; i + count < strings; ++i)
    env[i] = next(at, end);

  if (fcntl(report_fd, F_SETFD, FD_CLOEXEC) < 0) refuse("cannot find the report");
  if (dup2(2, 1) < 0) refuse("cannot duplicate the output");
  for (int fd = 3; fd < report_fd; ++fd)
    close(fd);
  if (syscall(SYS_close_range, report_fd + 1, ~0U, 0) < 0) refuse("cannot close descriptors");
  // its own session, so that signals to the group of the sandbox reach the sandbox, whose end is the builder's
  if (setsid() < 0 && errno != EPERM) refuse("cannot make a session");
  umask(022);
  mount_inputs(store, inputs, inputs_count);
  drop_capabilities();
  rlimit core{0, RLIM_INFINITY};
  if (getrlimit(RLIMIT_CORE, &core) == 0) core.rlim_cur = 0;
  setrlimit(RLIMIT_CORE, &core); // ignored: a core file is no harm
  // here and not before, since the kernel counts the processes of a user by user namespace
  rlimit tasks{processes, processes};
  if (processes > 0 && setrlimit(RLIMIT_NPROC, &tasks) < 0) refuse("cannot limit the number of processes");
  if (personality(persona) < 0) refuse("cannot set the personality");
  if (chdir("/build") < 0) refuse("cannot enter /build");
  filter_system_calls();
  if (write(report_fd, "r", 1) != 1) refuse("cannot report");
  execve(builder, argv, env);
  refuse(builder);
}
