#include "runtime/mesh.hpp"

#include <caf/make_actor.hpp>

#include <algorithm>

namespace coppice::rt {

/// An actor without mailbox: enqueue() turns what it is sent into words for another node, on the sender's thread.
class remote_ref final : public caf::monitorable_actor {
public:
  remote_ref(caf::actor_config& cfg, std::shared_ptr<mesh> owner, node_id node, std::string path,
             const remote_methods& methods)
      : caf::monitorable_actor(cfg)
      , owner_(std::move(owner))
      , node_(std::move(node))
      , path_(std::move(path))
      , methods_(methods) {}

  const char* name() const override { return "remote-ref"; }
  const std::string& path() const { return path_; }
  using caf::monitorable_actor::enqueue;
  void enqueue(caf::mailbox_element_ptr x, caf::execution_unit*) override {
    if (!x->mid.is_response()) owner_->call(node_, path_, methods_, caf::strong_actor_ptr{ctrl()}, *x);
  }
  void attach(caf::attachable_ptr ptr) override {
    caf::monitorable_actor::attach(std::move(ptr));
    if (!owner_->reaches(node_)) tell_monitors();
  }
  void tell_monitors() {
    caf::attachable_ptr monitors;
    {
      std::lock_guard lock{mtx_};
      monitors.swap(attachables_head_);
    }
    for (auto i = monitors.get(); i != nullptr; i = i->next.get())
      i->actor_exited(make_error(ec::peer_down, "the session with " + node_.value + " ended"), nullptr);
  }

private:
  const std::shared_ptr<mesh> owner_;
  const node_id node_;
  const std::string path_;
  const remote_methods& methods_;
};

namespace {

std::string home_of(std::string_view path) {
  if (!path.starts_with('/')) return {};
  auto end = path.find('/', 1);
  return std::string{path.substr(1, end == std::string_view::npos ? end : end - 1)};
}

} // namespace

mesh::mesh(directory names, node_id me, mesh_options o) : names_(std::move(names)), me_(std::move(me)), options_(o) {}
mesh::~mesh() = default;

caf::strong_actor_ptr mesh::remote(const node_id& node, const std::string& path, const remote_methods& methods) {
  std::lock_guard lock{mutex_};
  auto& known = refs_[ref_key{node, path, &methods}];
  if (auto ref = caf::actor_cast<caf::strong_actor_ptr>(known)) return ref;
  caf::actor_config cfg;
  auto& system = names_.system();
  auto ref = caf::make_actor<remote_ref, caf::strong_actor_ptr>(system.next_actor_id(), system.node(), &system, cfg,
                                                                shared_from_this(), node, path, methods);
  known = caf::actor_cast<caf::weak_actor_ptr>(ref);
  if (refs_.size() >= refs_purged_at_) {
    std::erase_if(refs_, [](const auto& r) { return caf::actor_cast<caf::strong_actor_ptr>(r.second) == nullptr; });
    refs_purged_at_ = std::max<std::size_t>(1'024, 2 * refs_.size());
  }
  return ref;
}

void mesh::expose(const std::string& path, const remote_methods& methods) {
  std::lock_guard lock{mutex_};
  exposed_[path].insert(&methods);
  if (exposed_.size() >= exposed_purged_at_) {
    std::erase_if(exposed_, [&](const auto& e) { return e.first != path && names_.find(e.first) == nullptr; });
    exposed_purged_at_ = std::max<std::size_t>(1'024, 2 * exposed_.size());
  }
}

expected<std::string> mesh::name(const caf::strong_actor_ptr& actor, const remote_methods& as) {
  if (!actor) return std::string{};
  if (auto* mine = dynamic_cast<ref_actor*>(actor->get())) {
    expose(mine->path(), as);
    return mine->path();
  }
  if (auto* other = dynamic_cast<remote_ref*>(actor->get())) return other->path();
  return fail(ec::invalid, "only an actor with a name can be told to another node");
}

expected<caf::strong_actor_ptr> mesh::handle(const node_id& from, const std::string& name, const remote_methods& as) {
  const auto home = home_of(name);
  if (home == from.value && name.size() <= actor_path_bytes_max) return remote(from, name, as);
  if (home == me_.value) {
    std::unique_lock lock{mutex_};
    auto found = exposed_.find(name);
    const bool same = found != exposed_.end() && found->second.contains(&as);
    lock.unlock();
    if (auto mine = same ? names_.find(name) : nullptr) return mine;
  }
  return fail(ec::bad_message, "'" + name.substr(0, 100) + "' is no actor that " + from.value + " may give");
}

bool mesh::reaches(const node_id& node) const {
  std::lock_guard lock{mutex_};
  return sessions_.contains(node);
}

bool mesh::on_up(const node_id& node, incarnation born, std::shared_ptr<line> to, std::shared_ptr<outbox> out) {
  std::shared_ptr<line> former;
  {
    std::lock_guard lock{mutex_};
    auto found = sessions_.find(node);
    if (found != sessions_.end() && found->second.to == to) return true;
    if (found != sessions_.end() && found->second.born > born) return false;
    if (found != sessions_.end()) former = found->second.to;
  }
  if (former) {
    former->alive = false;
    on_down(node, former);
  }
  {
    std::lock_guard lock{mutex_};
    sessions_[node] = {born, std::move(to), std::move(out)};
  }
  tell_observers(node, true);
  return true;
}

void mesh::on_down(const node_id& node, const std::shared_ptr<line>& to) {
  std::vector<open_call> lost;
  bool ended = false;
  {
    std::lock_guard lock{mutex_};
    if (auto found = sessions_.find(node); found != sessions_.end() && found->second.to == to) {
      sessions_.erase(found);
      ended = true;
    }
    for (auto i = calls_.begin(); i != calls_.end();) {
      if (i->second.to == to) {
        lost.push_back(std::move(i->second));
        i = calls_.erase(i);
      } else {
        ++i;
      }
    }
  }
  for (auto& call : lost)
    answer(call, make_error(ec::peer_down, "the session with " + node.value + " ended"));
  if (!ended) return;
  for (auto& ref : refs_of(node))
    static_cast<remote_ref*>(ref->get())->tell_monitors();
  tell_observers(node, false);
}

void mesh::tell_observers(const node_id& node, bool up) const {
  for (auto& hear : observers_)
    hear(node, up);
}

std::vector<caf::strong_actor_ptr> mesh::refs_of(const node_id& node) const {
  std::lock_guard lock{mutex_};
  std::vector<caf::strong_actor_ptr> all;
  for (auto i = refs_.lower_bound({node, {}, nullptr}); i != refs_.end() && i->first.node == node; ++i)
    if (auto ref = caf::actor_cast<caf::strong_actor_ptr>(i->second)) all.push_back(std::move(ref));
  return all;
}

void mesh::call(const node_id& node, const std::string& path, const remote_methods& methods,
                const caf::strong_actor_ptr& ref, caf::mailbox_element& x) {
  const bool asks = x.mid.is_request() && x.sender;
  open_call call{{}, x.sender, ref, x.mid, nullptr, names_.system().clock().now() + options_.call_timeout};
  auto refuse = [&](caf::error e) {
    if (asks) answer(call, std::move(e));
  };
  const auto& content = x.content();
  auto method = std::find_if(methods.begin(), methods.end(), [&](auto& m) { return m.matches(content); });
  if (method == methods.end()) return refuse(make_error(ec::unsupported, path + " cannot be told that from afar"));
  auto words = method->encode(content, *this);
  if (!words) return refuse(make_error(words.error()));
  frame f;
  f.head.kind = asks ? frame_kind::request : frame_kind::cast;
  f.head.target = path;
  f.head.method = method->name;
  f.head.with = std::move(words->with);
  if (auto& r = words->relayed) {
    f.head.target = std::move(r->target);
    f.head.method = std::move(r->method);
    f.head.whom = std::move(r->who.name);
    f.head.whom_role = static_cast<std::uint8_t>(r->who.role);
  }
  f.body = std::move(words->body);
  call.decode = method->decode_answer;
  session to;
  {
    std::unique_lock lock{mutex_};
    auto found = sessions_.find(node);
    if (found == sessions_.end()) {
      lock.unlock();
      return refuse(make_error(ec::peer_down, "there is no session with " + node.value));
    }
    if (asks && calls_.size() >= options_.calls_max) {
      lock.unlock();
      return refuse(make_error(ec::overloaded, std::to_string(options_.calls_max) + " calls to other nodes are open"));
    }
    to = found->second;
    if (f.body.size() > to.to->body_bytes_max) {
      lock.unlock();
      return refuse(make_error(ec::limit_exceeded, "a message of " + std::to_string(f.body.size()) + " bytes for " + path));
    }
    if (asks) {
      f.head.id = ++last_call_;
      call.to = to.to;
      calls_.emplace_hint(calls_.end(), f.head.id, call);
    }
  }
  const auto id = f.head.id;
  if (post(to, std::move(f)) || !asks) return;
  std::unique_lock lock{mutex_};
  const bool mine = calls_.erase(id) > 0;
  lock.unlock();
  if (mine) refuse(make_error(ec::congested, "too much is on its way to " + node.value));
}

bool mesh::post(const session& s, frame f) {
  const auto bytes = f.body.size() + f.head.target.size() + f.head.method.size() + f.head.with.size();
  if (!s.to->window->take(bytes)) return false;
  s.out->post({s.to, s.to->stream, std::move(f), bytes});
  return true;
}

void mesh::answer(const open_call& call, caf::error e) {
  call.sender->get()->eq_impl(call.mid.response_id(), call.ref, nullptr, std::move(e));
}

bool mesh::on_answer(const std::shared_ptr<line>& from, const envelope& head, std::string_view body) {
  std::unique_lock lock{mutex_};
  auto found = calls_.find(head.id);
  if (found == calls_.end() || found->second.to != from) return false;
  auto call = std::move(found->second);
  calls_.erase(found);
  lock.unlock();
  if (head.kind == frame_kind::error) {
    answer(call, make_error(error_of(head)));
    return true;
  }
  auto said = call.decode(body);
  if (said)
    call.sender->get()->enqueue(call.ref, call.mid.response_id(), std::move(*said), nullptr);
  else
    answer(call, make_error(said.error()));
  return said.has_value();
}

const remote_methods& relay_methods() {
  static const remote_methods all{
      {"", true,
       [](const caf::type_erased_tuple& m) { return m.match_elements<caf::atom_value, relayed_words>(); },
       [](const caf::type_erased_tuple& m, handle_names&) -> expected<remote_words> {
         auto r = m.get_as<relayed_words>(1);
         auto body = std::move(r.body);
         return remote_words{std::move(body), {}, std::move(r)};
       },
       [](std::string_view, const std::string&, const node_id&, handle_names&) -> expected<caf::message> {
         return fail(ec::unsupported, "nobody is exposed as a relay");
       },
       [](const caf::type_erased_tuple& answer, std::string& bytes) {
         if (!answer.match_elements<relayed_answer>()) return false;
         bytes = answer.get_as<relayed_answer>(0).body;
         return true;
       },
       [](std::string_view bytes) -> expected<caf::message> {
         return caf::make_message(relayed_answer{std::string{bytes}});
       }}};
  return all;
}

expected<mesh::incoming> mesh::on_words(const node_id& from, const envelope& head, std::string_view body) {
  bool known = false;
  const remote_method* method = nullptr;
  {
    std::lock_guard lock{mutex_};
    if (auto found = exposed_.find(head.target); found != exposed_.end()) {
      known = true;
      for (auto* table : found->second)
        for (auto& m : *table)
          if (m.name == head.method) method = &m;
    }
  }
  auto actor = known ? names_.find(head.target) : nullptr;
  if (!actor)
    return fail(ec::no_such_target, "no actor '" + head.target.substr(0, 100) + "' may be called from " + from.value);
  if (method == nullptr)
    return fail(ec::unsupported, "'" + head.target + "' has no method '" + head.method.substr(0, 100) + "' for nodes");
  auto what = method->decode(body, head.with, from, *this);
  if (!what) return tl::unexpected(what.error());
  return incoming{{std::move(actor), {role::node, nullptr, method->encode_answer}}, std::move(*what), method->answers};
}

void mesh::sweep() {
  const auto now = names_.system().clock().now();
  std::vector<open_call> late;
  {
    std::lock_guard lock{mutex_};
    while (!calls_.empty() && calls_.begin()->second.due <= now) {
      late.push_back(std::move(calls_.begin()->second));
      calls_.erase(calls_.begin());
    }
  }
  for (auto& call : late)
    answer(call, make_error(ec::deadline, "no answer in time"));
}

std::size_t mesh::open() const {
  std::lock_guard lock{mutex_};
  return calls_.size();
}

} // namespace coppice::rt
