/// coppice-exec: the last step into a build sandbox. bwrap cannot set argv[0], leaves descriptors open, and its own
/// environment must not be the builder's; so it starts this program, by descriptor, since no file of ours shall be
/// visible inside. Statically linked, because inside there may be no libc.
///
/// Descriptor 4 is this program, 5 the order: NUL-terminated strings personality, builder, number of arguments,
/// arguments, environment. Descriptor 6 takes the report: "r" once the sandbox stands, then what execve refused.
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

#if defined(__x86_64__)
constexpr unsigned int native_arch = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr unsigned int native_arch = AUDIT_ARCH_AARCH64;
#else
constexpr unsigned int native_arch = 0;
#endif

constexpr unsigned int word(size_t at) {
  return static_cast<unsigned int>(at);
}

/// No set-user-id bits and no extended attributes, as in Nix: what a builder sees of them must not depend on the
/// machine. System calls of other architectures pass; outputs are stripped afterwards anyway.
void filter_system_calls() {
  if (native_arch == 0) return;
  sock_filter program[64];
  unsigned short n = 0;
  auto add = [&](unsigned short code, unsigned int k, unsigned char yes = 0, unsigned char no = 0) {
    program[n++] = sock_filter{code, yes, no, k};
  };
  constexpr unsigned short load = BPF_LD | BPF_W | BPF_ABS, equal = BPF_JMP | BPF_JEQ | BPF_K, ret = BPF_RET | BPF_K;
  auto refuse_mode = [&](unsigned int call, unsigned int argument) {
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
  constexpr unsigned int fchmodat2 = 452, setxattrat = 463;
  add(load, word(offsetof(seccomp_data, arch)));
  add(equal, native_arch, 1, 0);
  add(ret, SECCOMP_RET_ALLOW);
  add(load, word(offsetof(seccomp_data, nr)));
#ifdef SYS_chmod
  refuse_mode(SYS_chmod, 1);
#endif
  refuse_mode(SYS_fchmod, 1);
  refuse_mode(SYS_fchmodat, 2);
  refuse_mode(fchmodat2, 2);
  for (unsigned int call : {unsigned{SYS_setxattr}, unsigned{SYS_lsetxattr}, unsigned{SYS_fsetxattr}, setxattrat})
    refuse_call(call);
  add(ret, SECCOMP_RET_ALLOW);
  sock_fprog filter{n, program};
  // a kernel without seccomp builds too: ignored
  prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
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
  rlimit core{0, RLIM_INFINITY};
  if (getrlimit(RLIMIT_CORE, &core) == 0) core.rlim_cur = 0;
  setrlimit(RLIMIT_CORE, &core); // ignored: a core file is no harm
  if (personality(persona) < 0) refuse("cannot set the personality");
  if (chdir("/build") < 0) refuse("cannot enter /build");
  filter_system_calls();
  if (write(report_fd, "r", 1) != 1) refuse("cannot report");
  execve(builder, argv, env);
  refuse(builder);
}
