//! What a program is, by its name. Names prove nothing, for a file can be called anything; where
//! the content matters, drift looks at it.

/// What a program is: a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kind(u32);

impl Kind {
    pub(crate) const SHELL: Self = Self(1);
    /// Runs code that it is given, as `python`.
    pub(crate) const INTERPRETER: Self = Self(1 << 1);
    pub(crate) const PACKAGE_MANAGER: Self = Self(1 << 2);
    /// Answers requests from outside.
    pub(crate) const WEB_SERVER: Self = Self(1 << 3);
    pub(crate) const DATABASE: Self = Self(1 << 4);
    /// Starts shells for a living: schedulers, supervisors, build tools.
    pub(crate) const STARTER: Self = Self(1 << 5);
    pub(crate) const NETCAT: Self = Self(1 << 6);
    pub(crate) const DOWNLOADER: Self = Self(1 << 7);
    pub(crate) const MINER: Self = Self(1 << 8);
    pub(crate) const ACCOUNT_TOOL: Self = Self(1 << 9);
    pub(crate) const DEBUGGER: Self = Self(1 << 10);
    pub(crate) const SCANNER: Self = Self(1 << 11);
    /// Talks to a container engine or an orchestrator.
    pub(crate) const CONTAINER_CLIENT: Self = Self(1 << 12);
    pub(crate) const NAMESPACE_TOOL: Self = Self(1 << 13);
    pub(crate) const MODULE_TOOL: Self = Self(1 << 14);
    pub(crate) const DELETER: Self = Self(1 << 15);
    pub(crate) const SEARCHER: Self = Self(1 << 16);
    /// Reads passwords because it checks them.
    pub(crate) const LOGIN: Self = Self(1 << 17);
    /// Prints or sends what files hold.
    pub(crate) const READER: Self = Self(1 << 18);
    pub(crate) const CRON: Self = Self(1 << 19);

    /// Whether it is any of these.
    pub(crate) const fn is(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }

    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The last part of a path.
pub(crate) fn base(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, base)| base)
}

/// The name by which a program goes: of a box of many programs the one that was asked for.
pub(crate) fn name<'a>(path: &'a str, args: &[&'a str]) -> &'a str {
    let own = base(path);
    if !matches!(own, "busybox" | "toybox") {
        return own;
    }
    let mut asked = args.iter().copied().map(base);
    let applet = asked.find(|arg| !matches!(*arg, "busybox" | "toybox"));
    applet.map_or(own, |applet| applet.trim_start_matches('-'))
}

/// What a program with this name is.
pub(crate) fn kind(name: &str) -> Kind {
    // `python3.12`, `php-fpm8.2`, `gcc-14`.
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
    match stem {
        "sh" | "bash" | "dash" | "ash" | "zsh" | "ksh" | "mksh" | "fish" | "tcsh" | "csh"
        | "rbash" => Kind::SHELL,
        "python" | "perl" | "ruby" | "php" | "node" | "lua" | "awk" | "gawk" | "mawk" | "tclsh"
        | "java" | "deno" | "bun" => Kind::INTERPRETER,
        "apt" | "apt-get" | "aptitude" | "dpkg" | "yum" | "dnf" | "microdnf" | "tdnf"
        | "zypper" | "rpm" | "apk" | "pacman" | "pip" | "npm" | "yarn" | "pnpm" | "gem"
        | "cargo" | "snap" | "conda" | "opkg" | "uv" => Kind::PACKAGE_MANAGER,
        "nginx" | "apache" | "httpd" | "php-fpm" | "lighttpd" | "caddy" | "haproxy" | "envoy"
        | "gunicorn" | "uwsgi" | "uvicorn" | "tomcat" | "openresty" | "traefik" | "puma"
        | "unicorn" => Kind::WEB_SERVER,
        "mysqld" | "mariadbd" | "mongod" | "redis-server" | "valkey-server" | "memcached"
        | "postgres" | "clickhouse-server" | "beam.smp" => Kind::DATABASE,
        "cron" | "crond" | "supercronic" | "anacron" | "atd" | "fcron" => {
            Kind::STARTER.or(Kind::CRON)
        }
        "supervisord" | "s6-svscan" | "s6-supervise" | "runsv" | "runit" | "tini" | "dumb-init"
        | "catatonit" | "systemd" | "init" | "make" | "ninja" | "git" | "sshd" | "sudo" | "su"
        | "gosu" | "su-exec" | "logrotate" | "run-parts" | "xargs" | "env" | "find" => {
            starter(stem)
        }
        "nc" | "ncat" | "netcat" | "nc.openbsd" | "nc.traditional" | "socat" => Kind::NETCAT,
        "curl" | "wget" | "fetch" | "aria2c" => Kind::DOWNLOADER.or(Kind::READER),
        "xmrig" | "xmr-stak" | "minerd" | "cpuminer" | "ethminer" | "nbminer" | "t-rex"
        | "phoenixminer" | "lolminer" | "cgminer" | "bfgminer" | "kdevtmpfsi" | "kinsing"
        | "ccminer" | "nanominer" | "srbminer-multi" => Kind::MINER,
        "useradd" | "adduser" | "usermod" | "groupadd" | "addgroup" | "userdel" | "deluser"
        | "chpasswd" | "passwd" => Kind::ACCOUNT_TOOL.or(Kind::LOGIN),
        "login" | "unix_chkpwd" | "unix_update" | "chage" | "newgrp" | "vsftpd" | "dovecot"
        | "pwck" | "grpck" | "groupmod" | "usermod-shadow" | "systemd-sysusers"
        | "update-passwd" | "shadowconfig" | "groupdel" | "gpasswd" | "pwconv" | "sshd-session"
        | "sshd-auth" | "runuser" => Kind::LOGIN,
        "gdb" | "strace" | "ltrace" | "gdbserver" | "lldb" | "dlv" | "rr" => Kind::DEBUGGER,
        "nmap" | "masscan" | "zmap" | "naabu" | "rustscan" | "nikto" | "sqlmap" | "fscan"
        | "gobuster" | "ffuf" => Kind::SCANNER,
        "docker" | "podman" | "nerdctl" | "crictl" | "ctr" | "kubectl" | "helm" | "oc" => {
            Kind::CONTAINER_CLIENT
        }
        "nsenter" | "unshare" | "chroot" => Kind::NAMESPACE_TOOL,
        "insmod" | "modprobe" | "rmmod" | "kmod" => Kind::MODULE_TOOL,
        "rm" | "shred" | "truncate" | "unlink" | "wipe" => Kind::DELETER,
        "grep" | "egrep" | "fgrep" | "rg" | "ag" | "locate" | "mlocate" | "plocate" => {
            Kind::SEARCHER
        }
        "cat" | "head" | "tail" | "less" | "more" | "base" | "xxd" | "od" | "strings" | "cp"
        | "dd" | "tar" | "scp" | "rsync" | "vi" | "vim" | "nano" | "sed" | "tac" | "cut" => {
            Kind::READER
        }
        _ => Kind::default(),
    }
}

/// Programs that start shells, and are something else beside it.
fn starter(name: &str) -> Kind {
    match name {
        "find" => Kind::STARTER.or(Kind::SEARCHER),
        "sshd" | "sudo" | "su" => Kind::STARTER.or(Kind::LOGIN),
        _ => Kind::STARTER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_boxes_do_not_hide_a_program() {
        assert!(kind("python3.12").is(Kind::INTERPRETER));
        assert!(kind("php-fpm8.2").is(Kind::WEB_SERVER));
        assert!(kind("apache2").is(Kind::WEB_SERVER));
        let applet = name("bin/busybox", &["/bin/sh", "-c", "id"]);
        assert!(kind(applet).is(Kind::SHELL));
        let applet = name("bin/busybox", &["busybox", "nc", "-e"]);
        assert!(kind(applet).is(Kind::NETCAT));
        assert!(kind(name("bin/busybox", &["-ash"])).is(Kind::SHELL));
        // What a process calls itself counts for boxes alone.
        assert_eq!(name("usr/bin/bash", &["nginx: worker"]), "bash");
        assert_eq!(kind("my-app"), Kind::default());
    }
}
