# Becomes process 1 of a host: in new mount, pid, uts, ipc and cgroup namespaces, with a root of its
# own. $1: the userland, which stays as it is; $2: the host's folder (upper, work, merged, proc and
# console); $3: its name; $4: the kind of its cgroup; the rest is the program. All that is mounted
# here ends with the namespace.
set -e
lower=$1 host=$2 name=$3 kind=$4
shift 4
mount --make-rprivate /
hostname "$name"
root=$host/merged
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$host/upper,workdir=$host/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys" # of this network namespace
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
: >"$root/dev/console"
mount --bind "$host/console" "$root/dev/console"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/run/sshd" "$root/run/lock"
mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
if [ "$kind" = cgroup2 ]; then
    mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
else
    mkdir "$root/sys/fs/cgroup/systemd"
    mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
fi
# Settings of the machine stay out of reach, those of the network namespace do not.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t proc proc "$host/proc"
mount --bind "$host/proc/sys/net" "$root/proc/sys/net"
umount -l "$host/proc"
cd "$root"
mkdir -p .old
pivot_root . .old
umount -l .old
exec chroot . "$@"
