#pragma once

#include <map>
#include <string>
#include <vector>

/// What the daemon's machine is and has. Everything here asks the operating system.
namespace coppice::app {

/// Systems whose derivations this machine builds, its own first: on x86_64 i686 too if the kernel runs its programs.
std::vector<std::string> machine_systems();

/// The daemon's environment.
std::map<std::string, std::string> environment_variables();

/// The file of authorities that HTTPS servers are checked by: what NIX_SSL_CERT_FILE or SSL_CERT_FILE names, else the
/// first of the customary ones that is there; empty without any.
std::string find_ca_bundle();

} // namespace coppice::app
