#pragma once

#include "messages/errors.hpp"
#include "runtime/fd.hpp"

#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <vector>

/// Walking file trees that somebody hostile may have made.
namespace coppice::store {

/// A place in a file tree that moves one directory down or up at a time. Never follows a link, never crosses into a
/// mount, and holds one descriptor however deep it is.
class tree_cursor {
public:
  /// Stands in the parent directory of `top`, whose name is then top_name(). Links in the parent's path are followed.
  static expected<tree_cursor> at_parent_of(const std::filesystem::path& top);

  /// The directory it stands in, as an O_PATH descriptor or better.
  int fd() const { return here_.get(); }
  const std::string& top_name() const { return top_name_; }
  /// How many directories below the start it stands.
  std::size_t depth() const { return above_.size(); }
  /// The full path of an entry of this directory, for texts.
  std::string path_of(const std::string& name) const;

  /// Moves into the directory of that name; its entries may then be read.
  expected<void> enter(const std::string& name);
  /// Moves up; returns the name of the directory that was left. `io` if somebody moved the directory meanwhile.
  expected<std::string> leave();
  /// Names in the directory just entered, sorted bytewise, without "." and "..".
  expected<std::vector<std::string>> names() const;

  /// The error of the system call that just failed on an entry of this directory.
  tl::unexpected<error> failed(std::string_view verb, const std::string& name) const;

private:
  struct level {
    std::string name; ///< of the directory entered there
    dev_t device;     ///< of the directory it was entered from
    ino_t inode;
  };
  std::string start_;
  std::string top_name_;
  rt::unique_fd here_;
  std::vector<level> above_;
};

/// One entry as the walk meets it; the cursor stands in the directory that holds it.
struct tree_entry {
  const tree_cursor& at;
  const std::string& name;
  const struct stat& st;
  bool is_top() const { return at.depth() == 0; }
  std::string path() const { return at.path_of(name); }
};

/// What is done on a walk; an error ends it.
class tree_visitor {
public:
  virtual ~tree_visitor() = default;
  /// Anything but a directory.
  virtual expected<void> leaf(const tree_entry& entry) = 0;
  /// A directory, before it is opened.
  virtual expected<void> before(const tree_entry& directory) = 0;
  /// The directory after all its entries; `st` is as it was before.
  virtual expected<void> after(const tree_entry& directory) = 0;
};

/// Visits the tree depth-first, each directory's entries in bytewise order; `missing` if there is nothing at `top`,
/// `limit_exceeded` for directories more than `depth_max` deep.
expected<void> walk_tree(const std::filesystem::path& top, tree_visitor& visitor, std::size_t depth_max);

} // namespace coppice::store
