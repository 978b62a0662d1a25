#include "store/etcd/client.hpp"

#include "store/files.hpp"

#include <etcd.grpc.pb.h> // made of store/etcd/etcd.proto
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <thread>
#include <tuple>

/// The only file that includes gRPC: its headers take seconds to compile.
namespace coppice::store::etcd {

namespace {

namespace pb = etcdserverpb;
using clock = std::chrono::steady_clock;

/// A page of rows, each at most as large as etcd takes.
constexpr int answer_bytes_max = 256 << 20;
constexpr std::uint64_t pem_bytes_max = 1 << 20;
/// Between two rounds of asking all endpoints.
constexpr auto round_pause = std::chrono::milliseconds{50};

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

/// gRPC's words about connections are long, and name addresses twice.
std::string shortened(const grpc::Status& s) {
  constexpr std::size_t chars_max = 300;
  auto text = s.error_message().empty() ? "no answer" : s.error_message().substr(0, chars_max);
  // the deadline is told by the client or, if it sees it first, by etcd, with a code of its own
  if (s.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED || contains(text, "deadline exceeded"))
    return "no answer in time; it may have no leader or no quorum";
  if (contains(text, "no leader") || contains(text, "request timed out")) text += "; it may have no quorum";
  return text;
}

fault fault_of(const grpc::Status& s) {
  const auto text = s.error_message();
  if (contains(text, "database space exceeded")) return fault::no_space;
  if (contains(text, "has been compacted")) return fault::compacted;
  if (contains(text, "too many operations") || contains(text, "request is too large") ||
      contains(text, "larger than max"))
    return fault::too_large;
  switch (s.error_code()) {
  case grpc::StatusCode::UNAUTHENTICATED:
  case grpc::StatusCode::PERMISSION_DENIED: return fault::denied;
  case grpc::StatusCode::INVALID_ARGUMENT:
  case grpc::StatusCode::FAILED_PRECONDITION:
    return contains(text, "auth") || contains(text, "user name is empty") ? fault::denied : fault::refused;
  case grpc::StatusCode::NOT_FOUND:
  case grpc::StatusCode::OUT_OF_RANGE:
  case grpc::StatusCode::UNIMPLEMENTED: return fault::refused;
  default: return fault::unknown;
  }
}

/// A token that etcd forgot (it restarted, or five minutes passed): logging in again helps.
bool wants_new_token(const grpc::Status& s) {
  return contains(s.error_message(), "invalid auth token") ||
         contains(s.error_message(), "revision of auth store is old") ||
         contains(s.error_message(), "revision in header is old");
}

struct endpoint {
  std::string url;
  std::unique_ptr<pb::KV::Stub> kv;
  std::unique_ptr<pb::Lease::Stub> lease;
  std::unique_ptr<pb::Auth::Stub> auth;
};

class grpc_client final : public client {
public:
  grpc_client(client_options o, std::vector<endpoint> endpoints, const std::atomic<bool>* stop)
      : options_(std::move(o)), endpoints_(std::move(endpoints)), stop_(stop) {}

  result<page> range(const query& q) override {
    pb::RangeRequest request;
    request.set_key(q.begin);
    request.set_range_end(q.end);
    request.set_limit(q.limit);
    request.set_revision(q.revision);
    request.set_min_mod_revision(q.changed_since);
    pb::RangeResponse answer;
    auto done =
        repeated("read rows", [&](endpoint& e, auto* context) { return e.kv->Range(context, request, &answer); });
    if (!done) return tl::unexpected(done.error());
    page p;
    p.more = answer.more();
    p.revision = answer.header().revision();
    p.rows.reserve(static_cast<std::size_t>(answer.kvs_size()));
    for (auto& kv : *answer.mutable_kvs())
      p.rows.push_back({std::move(*kv.mutable_key()), std::move(*kv.mutable_value()), kv.mod_revision()});
    return p;
  }

  result<outcome> txn(const guarded_puts& t) override {
    pb::TxnRequest request;
    for (auto& guard : t.guards) {
      auto& c = *request.add_compare();
      c.set_target(pb::Compare::MOD);
      c.set_key(guard.key);
      c.set_mod_revision(guard.revision);
    }
    for (auto& put : t.puts) {
      auto& p = *request.add_success()->mutable_request_put();
      p.set_key(put.key);
      p.set_value(put.value);
      p.set_lease(put.lease);
    }
    // One that would do nothing is answered by any member alone, be it cut off: a read makes etcd ask a quorum.
    if (t.puts.empty() && !t.guards.empty()) {
      auto& r = *request.add_success()->mutable_request_range();
      r.set_key(t.guards.front().key);
      r.set_count_only(true);
    }
    pb::TxnResponse answer;
    auto done = once("write rows", [&](endpoint& e, auto* context) { return e.kv->Txn(context, request, &answer); });
    if (!done) return tl::unexpected(done.error());
    return outcome{answer.succeeded(), answer.header().revision()};
  }

  result<std::int64_t> grant_lease(std::int64_t ttl_s) override {
    pb::LeaseGrantRequest request;
    request.set_ttl(ttl_s);
    pb::LeaseGrantResponse answer;
    auto done = repeated("take a lease",
                         [&](endpoint& e, auto* context) { return e.lease->LeaseGrant(context, request, &answer); });
    if (!done) return tl::unexpected(done.error());
    return answer.id();
  }

  result<bool> keep_lease(std::int64_t lease) override {
    pb::LeaseKeepAliveResponse answer;
    auto done = once("keep a lease", [&](endpoint& e, grpc::ClientContext* context) {
      pb::LeaseKeepAliveRequest request;
      request.set_id(lease);
      auto stream = e.lease->LeaseKeepAlive(context);
      bool said = stream->Write(request) && stream->Read(&answer);
      if (said) stream->WritesDone();
      if (said) context->TryCancel(); // one answer is all that is wanted
      auto status = stream->Finish();
      return said ? grpc::Status::OK : status.ok() ? grpc::Status{grpc::StatusCode::UNAVAILABLE, "no answer"} : status;
    });
    if (!done) return tl::unexpected(done.error());
    return answer.ttl() > 0;
  }

  result<void> revoke_lease(std::int64_t lease) override {
    pb::LeaseRevokeRequest request;
    request.set_id(lease);
    pb::LeaseRevokeResponse answer;
    return once("end a lease",
                [&](endpoint& e, auto* context) { return e.lease->LeaseRevoke(context, request, &answer); });
  }

private:
  /// One try at the present endpoint, after logging in if that is needed.
  template <class Call>
  result<void> once(const char* what, Call call) {
    for (int logins = 0;; ++logins) {
      if (auto in = log_in(); !in) return in;
      auto status = attempt(call);
      if (status.ok()) {
        unanswered_ = 0;
        return {};
      }
      if (wants_new_token(status) && logins == 0) {
        token_.clear();
        continue;
      }
      return failure_at(what, status);
    }
  }

  template <class Call>
  result<void> repeated(const char* what, Call call) {
    auto until = clock::now() + options_.patience;
    failed first; // what each endpoint said at first; later ones say only that there was no connection in time
    for (std::size_t tries = 1;; ++tries) {
      auto done = once(what, call);
      if (done || done.error().fault != fault::unknown) return done;
      if (tries <= endpoints_.size()) first.what += (tries > 1 ? "; " : "") + done.error().what;
      if (clock::now() >= until || (stop_ && *stop_)) return tl::unexpected(first);
      if (tries % endpoints_.size() == 0) std::this_thread::sleep_for(round_pause);
    }
  }

  template <class Call>
  grpc::Status attempt(Call&& call) {
    grpc::ClientContext context;
    context.set_deadline(
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(options_.call_max.count(), GPR_TIMESPAN)));
    context.set_wait_for_ready(unanswered_ >= endpoints_.size());
    if (!token_.empty()) context.AddMetadata("token", token_);
    return call(endpoints_[at_], &context);
  }

  result<void> log_in() {
    if (options_.user.empty() || !token_.empty()) return {};
    pb::AuthenticateRequest request;
    request.set_name(options_.user);
    request.set_password(options_.password);
    pb::AuthenticateResponse answer;
    auto status = attempt(
        [&](endpoint& e, grpc::ClientContext* context) { return e.auth->Authenticate(context, request, &answer); });
    if (!status.ok() && !contains(status.error_message(), "authentication is not enabled"))
      return failure_at(("log in as " + options_.user).c_str(), status);
    token_ = status.ok() ? answer.token() : "none"; // any will do where nobody looks
    return {};
  }

  /// Without an answer, the next call goes to the next endpoint.
  tl::unexpected<failed> failure_at(const char* what, const grpc::Status& status) {
    auto kind = fault_of(status);
    auto text = std::string("etcd at ") + endpoints_[at_].url + ", asked to " + what + ": " + shortened(status);
    if (kind == fault::unknown) {
      ++unanswered_;
      at_ = (at_ + 1) % endpoints_.size();
      token_.clear(); // simple tokens are known to all members, but a restarted one has none
    }
    return tl::unexpected(failed{kind, std::move(text)});
  }

  const client_options options_;
  std::vector<endpoint> endpoints_;
  std::size_t at_ = 0;
  std::string token_;
  /// Calls in a row without an answer. A channel gets on with connecting only while a call is under way: once all
  /// endpoints failed, calls wait for it.
  std::size_t unanswered_ = 0;
  const std::atomic<bool>* stop_;
};

expected<std::string> read_pem(const std::string& file, const char* what) {
  if (file.empty()) return std::string{};
  auto text = read_file(file, pem_bytes_max);
  if (!text) return fail(ec::io, std::string("etcd's ") + what + ": " + text.error().what);
  return text;
}

} // namespace

expected<std::unique_ptr<client>> open_client(client_options o, const std::atomic<bool>* stop) {
  if (o.endpoints.empty()) return fail(ec::invalid, "no etcd endpoint is named");
  const bool tls = o.endpoints.front().starts_with("https://");
  if (!tls && !(o.ca + o.cert + o.key).empty())
    return fail(ec::invalid,
                "etcd's certificates are of use for https:// endpoints only, not for " + o.endpoints.front());
  if (o.cert.empty() != o.key.empty())
    return fail(ec::invalid, "etcd needs a client certificate and its key, or neither");
  grpc::SslCredentialsOptions ssl;
  for (auto [file, what, into] :
       {std::tuple{&o.ca, "CA file", &ssl.pem_root_certs}, std::tuple{&o.cert, "certificate file", &ssl.pem_cert_chain},
        std::tuple{&o.key, "key file", &ssl.pem_private_key}}) {
    auto text = read_pem(*file, what);
    if (!text) return tl::unexpected(text.error());
    *into = std::move(*text);
  }
  auto credentials = tls ? grpc::SslCredentials(ssl) : grpc::InsecureChannelCredentials();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(answer_bytes_max);
  arguments.SetMaxSendMessageSize(answer_bytes_max);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2'000); // an attempt may take so long: a busy server is no dead one
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  std::vector<endpoint> endpoints;
  for (auto& url : o.endpoints) {
    auto scheme = tls ? std::string("https://") : std::string("http://");
    if (!url.starts_with(scheme) || url.size() == scheme.size())
      return fail(ec::invalid, "'" + url + "' is not an etcd endpoint like " + scheme + "127.0.0.1:2379" +
                                   (tls ? " (either all are https or none)" : ""));
    auto channel = grpc::CreateCustomChannel(url.substr(scheme.size()), credentials, arguments);
    endpoints.push_back({url, pb::KV::NewStub(channel), pb::Lease::NewStub(channel), pb::Auth::NewStub(channel)});
  }
  return std::make_unique<grpc_client>(std::move(o), std::move(endpoints), stop);
}

std::string prefix_end(std::string prefix) {
  while (!prefix.empty() && static_cast<unsigned char>(prefix.back()) == 0xff)
    prefix.pop_back();
  if (!prefix.empty()) ++prefix.back();
  return prefix;
}

} // namespace coppice::store::etcd
