//! The rules for command lines as data: which programs take a password, by which flag, in which place, or on stdin.

/// A flag's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// `-pVALUE`.
    Attached,
    /// `-p VALUE`.
    Next,
    /// Either of them.
    Both,
    /// `-u USER:VALUE`, of which the part behind the colon is the secret.
    UserColon,
    /// `-U USER%VALUE`.
    UserPercent,
    /// `-u USER,VALUE`.
    UserComma,
    /// `-b NAME=VALUE`, all of which is the secret.
    Cookie,
    /// `-p VALUE` of any program that is given a user: not a word, a number or a path.
    Random,
}

use Takes::{Attached, Both, Cookie, Next, Random, UserColon, UserComma, UserPercent};

/// The flags by which programs take passwords; one of the words must stand before the flag in its line.
pub(super) const FLAGS: &[(&[&str], &[&str], Takes)] = &[
    (
        &["mysql", "mysqldump", "mysqladmin", "mysqlimport", "mysqlcheck", "mysqlshow", "mysqlsh", "mysqlbinlog"],
        &["-p"],
        Attached,
    ),
    (
        &[
            "mariadb",
            "mariadb-dump",
            "mariadb-admin",
            "mariadb-backup",
            "xtrabackup",
            "7z",
            "7za",
            "7zz",
            "rar",
            "unrar",
        ],
        &["-p"],
        Attached,
    ),
    (&["sshpass", "login", "mongo", "mongosh", "mongodump", "mongorestore", "mongoexport"], &["-p"], Both),
    (&["mongoimport", "mongostat", "cqlsh", "nodetool", "dsbulk", "rdesktop", "psexec", "psexec64"], &["-p"], Next),
    (&["ncftp", "ncftpput", "ncftpget", "certutil", "useradd", "usermod", "kinit", "evil-winrm"], &["-p"], Next),
    (&["crackmapexec", "netexec", "nxc", "influx", "cypher-shell", "arangosh", "poetry", "twine"], &["-p"], Next),
    (&["zip", "unzip", "zipcloak", "sqlcmd", "bcp", "isql", "osql", "tsql"], &["-P"], Both),
    (&["mosquitto_pub", "mosquitto_sub", "ipmitool", "asadmin"], &["-P"], Next),
    (&["clickhouse-client"], &["--password"], Next),
    (&["redis-cli", "valkey-cli", "redis-benchmark", "keydb-cli"], &["-a", "--pass"], Next),
    (&["ldapsearch", "ldapmodify", "ldapadd", "ldapwhoami", "ldapdelete", "ldapmodrdn", "ldapcompare"], &["-w"], Both),
    (&["ldappasswd"], &["-s", "-a", "-w"], Next),
    (&["kadmin", "kadmin.local"], &["-w", "-pw"], Next),
    (&["addprinc", "cpw", "ank"], &["-pw"], Next),
    (&["ktutil", "samba-tool"], &["--newpassword", "--password"], Next),
    (&["plink", "pscp", "psftp", "putty", "kitty"], &["-pw"], Next),
    (&["snmpwalk", "snmpget", "snmpset", "snmpbulkwalk", "snmptrap"], &["-A", "-X"], Next),
    (&["openssl"], &["-k", "-K", "-passin", "-passout", "-pass"], Next),
    (&["keytool", "jarsigner", "apksigner"], &["-storepass", "-keypass", "-new", "-srcstorepass"], Next),
    (&["keytool"], &["-deststorepass", "-destkeypass", "-srckeypass"], Next),
    (&["gpg", "gpg2"], &["--passphrase"], Next),
    (&["ansible-vault", "pass", "restic", "borg", "vault"], &["--password", "--passphrase"], Next),
    (&["pdftotext", "pdfimages", "pdftoppm", "pdfinfo", "pdfunite", "pdftocairo"], &["-upw", "-opw"], Next),
    (&["pdftk"], &["user_pw", "owner_pw", "input_pw"], Next),
    (&["put-parameter", "keyvault"], &["--value"], Next),
    (&["curl"], &["-b", "--cookie"], Cookie),
    (&["secret", "secrets", "variable"], &["-b", "--body", "--value"], Next),
    (&["lftp", "open"], &["-u", "--user"], UserComma),
    (&["curl"], &["-u", "--user", "-U", "--proxy-user"], UserColon),
    (&["http", "https", "xh", "xhs"], &["-a"], UserColon),
    (
        &["smbclient", "rpcclient", "smbget", "smbcacls", "smbmap", "net", "wmic", "winexe"],
        &["-U", "--user"],
        UserPercent,
    ),
    (&["-u", "-U", "--user", "--username", "--login"], &["-p", "-P", "-pw"], Random),
    // Without a program that is known, what stands behind the colon must not be a number or a word.
    (&[], &["-u", "--user", "--auth", "--basic-auth", "--creds", "--src-creds", "--dest-creds"], UserColon),
    (&[], &["-U"], UserPercent),
];

/// Flags of Windows' programs and of FreeRDP: `/p:VALUE` or `/p VALUE`.
pub(super) const SLASH_FLAGS: &[(&[&str], &[&str])] = &[
    (
        &["xfreerdp", "xfreerdp3", "wlfreerdp", "wlfreerdp3", "wfreerdp", "sdl3-freerdp", "sdl-freerdp", "mstsc"],
        &["p", "gp"],
    ),
    (&["signtool", "schtasks", "wmic", "taskkill", "tasklist", "systeminfo", "cmdkey", "sc"], &["p", "rp", "pass"]),
    (&["driverquery", "gpresult", "eventcreate", "openfiles", "getmac", "logman"], &["p", "rp"]),
];

/// The place of a password among the arguments that are no flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ArgumentPlace {
    /// So many arguments stand before it.
    Nth(usize),
    /// The last of at least so many arguments.
    Last(usize),
    /// The first of so many arguments, all of them passwords.
    First(usize),
    /// The only argument, if it cannot be a word.
    Only,
    /// `NAME VALUE`, where the name is that of a secret.
    Named,
    /// `USER/VALUE@DATABASE` in the first argument.
    UserSlash,
}

use ArgumentPlace::{First, Last, Named, Nth, Only, UserSlash};

/// The words of a command, and where its password stands behind them.
pub(super) const PLACES: &[(&[&str], ArgumentPlace)] = &[
    (&["htpasswd", "-b"], Last(2)),
    (&["mosquitto_passwd", "-b"], Last(2)),
    (&["net", "use"], Last(2)),
    (&["net", "user"], Nth(1)),
    (&["wpa_passphrase"], Nth(1)),
    (&["--encrypt"], First(2)),
    (&["requirepass"], Nth(0)),
    (&["masterauth"], Nth(0)),
    (&["wpa-psk"], Nth(0)),
    (&["ConvertTo-SecureString"], Nth(0)),
    (&["rabbitmqctl", "add_user"], Nth(1)),
    (&["rabbitmqctl", "change_password"], Nth(1)),
    (&["rabbitmqctl", "authenticate_user"], Nth(1)),
    (&["ejabberdctl", "register"], Nth(2)),
    (&["prosodyctl", "register"], Nth(2)),
    (&["create-user"], Nth(1)),
    (&["vault", "login"], Only),
    (&["rclone", "obscure"], Only),
    (&["cargo", "login"], Only),
    (&["set"], Named),
    (&["setx"], Named),
    (&["setenv"], Named),
    (&["config"], Named),
    (&["put"], Named),
    (&["sqlplus"], UserSlash),
    (&["sqlldr"], UserSlash),
    (&["rman", "target"], UserSlash),
    (&["impdp"], UserSlash),
    (&["expdp"], UserSlash),
    (&["exp"], UserSlash),
    (&["imp"], UserSlash),
    (&["oracle:thin"], UserSlash),
    (&["oracle:oci"], UserSlash),
    (&["vncpasswd", "-f"], Nth(0)),
    (&["smbpasswd", "-a"], Nth(1)),
];

/// Commands of protocols that stand alone in their line: the last argument is the password.
pub(super) const PROTOCOLS: &[&str] = &["AUTH", "PASS", "LOGIN", "IDENTIFY"];

/// Programs that read a password on stdin, each with what else must stand in the command.
pub(super) const READERS: &[(&str, &str)] = &[
    ("sudo", " -S"),
    ("sudo", " --stdin"),
    ("sudo", " -kS"),
    ("sudo", " -Sk"),
    ("doas", " -S"),
    ("su ", ""),
    ("chpasswd", ""),
    ("passwd", ""),
    ("smbpasswd", ""),
    ("pdbedit", "-t"),
    ("cryptsetup", ""),
    ("gpg", "--passphrase-fd"),
    ("gpg", "--pinentry-mode"),
    ("kinit", ""),
    ("--password-stdin", ""),
    ("--with-token", ""),
    ("htpasswd", ""),
    ("vncpasswd", ""),
    ("wpa_passphrase", ""),
    ("secret-tool", "store"),
    ("secrets create", "-"),
    ("secret create", "-"),
    ("secrets add", "-"),
    ("secret set", ""),
    ("secret put", ""),
    ("secrets set", ""),
    ("pass insert", ""),
    ("vault login", "-"),
    ("openssl", "stdin"),
    ("openssl", "-stdin"),
    ("mkpasswd", ""),
    ("ssh-add", "-"),
    ("mount.ecryptfs", ""),
    ("ecryptfs-add-passphrase", ""),
    ("gocryptfs", ""),
    ("zfs load-key", ""),
    ("openconnect", "--passwd-on-stdin"),
    ("pinentry", ""),
    ("docker login", ""),
    ("podman login", ""),
];

/// Words that send text to a program that asked for it.
pub(super) const SENDERS: &[&str] = &["send", "exp_send", "sendline", "sendLine", "send_line", "sendlineafter"];

/// Functions that take a user and a password.
pub(super) const LOGINS: &[&str] = &["auth", "credentials", "credential", "login", "authenticate", "connect"];

/// Words that announce a value which is named behind it: "use VALUE as the password".
pub(super) const OFFERS: &[&str] = &["use", "using", "try", "enter", "type", "set", "with"];
