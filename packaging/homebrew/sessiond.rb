# A formula for the laptop: brew install --HEAD ./packaging/homebrew/sessiond.rb, in a checkout of sessiond.
class Sessiond < Formula
  desc "Keeps the record of AI coding sessions, with or without the network"
  homepage "file://#{File.expand_path("../..", __dir__)}"
  license "MIT"
  head "file://#{File.expand_path("../..", __dir__)}", using: :git

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args
    system "cargo", "run", "--quiet", "--locked", "--example", "manuals", "--", "manuals"
    man1.install Dir["manuals/*.1"]
    generate_completions_from_executable(bin/"sessiond", "completions", shells: [:bash, :zsh, :fish])
    pkgshare.install "config.example.toml", "migrations/central/rights"
  end

  # The same daemon that `sessiond install` would set up, under Homebrew's own care.
  service do
    run [opt_bin/"sessiond", "run"]
    keep_alive successful_exit: false
    throttle_interval 5
    process_type :background
    log_path var/"log/sessiond.log"
    error_log_path var/"log/sessiond.log"
  end

  test do
    pid = spawn({ "HOME" => testpath.to_s }, bin/"sessiond", "run", "--machine", "brew")
    begin
      sleep 0.1 until (testpath/"Library/Application Support/sessiond/sessiond.sock").exist?
      id = shell_output("HOME=#{testpath} #{bin}/sessiond register --project brew --id-only").strip
      assert_match "@brew", shell_output("HOME=#{testpath} #{bin}/sessiond footer #{id}")
    ensure
      Process.kill("TERM", pid)
      Process.wait(pid)
    end
  end
end
