# The policy in its place, once it has no error, and in force.
/etc/policylang/web.policy:
  file.managed:
    - source: salt://firewall/web.policy
    - mode: '0644'
    - makedirs: true
    - check_cmd: policylang check --target nft
    - tmp_ext: .policy

firewall:
  cmd.run:
    - name: policylang apply /etc/policylang/web.policy --yes --no-confirm
    - unless: policylang apply /etc/policylang/web.policy --check
    - require:
      - file: /etc/policylang/web.policy
