#include "apps/coppiced/machine.hpp"

#include "runtime/fd.hpp"

#include <spawn.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>

namespace coppice::app {
namespace {

/// An ELF program for i386 that calls exit(0) and has nothing else.
constexpr std::array<std::uint8_t, 93> program_i386{
    0x7f, 'E',  'L',  'F',  1,    1,    1,    0,    0,
    0,    0,    0,    0,    0,    0,    0, // 32 bits, little-endian
    2,    0,    3,    0,    1,    0,    0,    0,    0x54,
    0x80, 4,    8,    52,   0,    0,    0, // executable, i386, entry, program headers at 52
    0,    0,    0,    0,    0,    0,    0,    0,    52,
    0,    32,   0,    1,    0,    0,    0, // one of them
    0,    0,    0,    0,                   //
    1,    0,    0,    0,    0,    0,    0,    0,    0,
    0x80, 4,    8,    0,    0x80, 4,    8, // load all of the file at 0x8048000
    93,   0,    0,    0,    93,   0,    0,    0,    5,
    0,    0,    0,    0,    0x10, 0,    0,                 // readable and executable
    0x31, 0xdb, 0x31, 0xc0, 0x40, 0xcd, 0x80, 0xeb, 0xfe}; // ebx = 0, eax = 1, int 0x80

bool runs_i386() {
  const rt::unique_fd fd{::memfd_create("i386", MFD_CLOEXEC)};
  if (!fd || ::write(fd.get(), program_i386.data(), program_i386.size()) != ssize_t{program_i386.size()}) return false;
  auto path = "/proc/self/fd/" + std::to_string(fd.get());
  char* argv[] = {path.data(), nullptr};
  pid_t child = -1;
  if (::posix_spawn(&child, path.c_str(), nullptr, nullptr, argv, nullptr) != 0) return false;
  int status = -1;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return false;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

constexpr std::array ca_bundles{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
                                "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"};

} // namespace

std::vector<std::string> machine_systems() {
  utsname u{};
  ::uname(&u);
  const std::string machine = u.machine;
  std::vector<std::string> systems{machine + "-linux"};
  if (machine == "x86_64" && runs_i386()) systems.emplace_back("i686-linux");
  return systems;
}

std::map<std::string, std::string> environment_variables() {
  std::map<std::string, std::string> all;
  for (char** at = environ; at && *at; ++at) {
    const std::string text = *at;
    if (const auto equals = text.find('='); equals != text.npos)
      all.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return all;
}

std::string find_ca_bundle() {
  for (const char* name : {"NIX_SSL_CERT_FILE", "SSL_CERT_FILE"})
    if (const char* file = std::getenv(name); file && *file) return file;
  for (const char* file : ca_bundles)
    if (::access(file, R_OK) == 0) return file;
  return {};
}

} // namespace coppice::app
