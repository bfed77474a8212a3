# The policy in its place, once it has no error, and in force.
class firewall (
  String $source = 'puppet:///modules/firewall/web.policy',
) {
  $path = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin']

  file { '/etc/policylang':
    ensure => directory,
  }

  file { '/etc/policylang/web.policy':
    ensure       => file,
    mode         => '0644',
    source       => $source,
    validate_cmd => 'policylang check --target nft %',
  }

  exec { 'firewall':
    command => 'policylang apply /etc/policylang/web.policy --yes --no-confirm',
    unless  => 'policylang apply /etc/policylang/web.policy --check',
    path    => $path,
    require => File['/etc/policylang/web.policy'],
  }
}
